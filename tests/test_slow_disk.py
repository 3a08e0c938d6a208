"""A disk on which one fsync takes seconds: every answer is true, and health waits for nothing."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.service import Service, eventually, running
from tests.storage import needs_strace, statuses
from tests.test_faults import failing

pytestmark = needs_strace

CLIENTS = 16


def submit(service: Service, number: int) -> httpx.Response:
    return service.client.post("/jobs", json={"type": f"n{number}"})


@pytest.mark.parametrize("seconds", [3, 7])
def test_a_submit_that_a_slow_fsync_holds_up_is_answered_with_the_truth(seconds: int, tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    slow = f"fdatasync:delay_exit={seconds}000000"
    with running(GOFER_DATABASE=database, GOFER_SIMULATED_SECONDS=0) as service:
        with failing(service, database, slow), ThreadPoolExecutor(CLIENTS) as threads:
            posts = [threads.submit(submit, service, number) for number in range(CLIENTS)]
            health: list[float] = []
            while not all(post.done() for post in posts):
                before = time.monotonic()
                answer = service.client.get("/health")
                health.append(time.monotonic() - before)
                assert answer.status_code in {200, 503}
            assert len(health) > 10
            assert statistics.quantiles(health, n=10)[-1] < 0.05
            assert max(health) < 0.5  # On a busy machine.
            answers = [post.result() for post in posts]
        eventually(service.is_well)
        time_to_store = service.submit()
        service.wait_for(time_to_store[0], "completed")
        stored = {str(job["type"]) for page in service.walk() for job in page}
    for number, answer in enumerate(answers):
        detail = answer.json().get("detail", "")
        match answer.status_code:
            case 201:
                assert f"n{number}" in stored
            case 503 if "unknown" in detail:
                assert "Retry-After" not in answer.headers
                assert "the same Idempotency-Key" in detail
            case 503:
                assert "nothing was stored" in detail
                assert f"n{number}" not in stored
                assert int(answer.headers["Retry-After"]) > 0
            case other:
                pytest.fail(f"{other}: {answer.text}")
    assert {answer.status_code for answer in answers} != {201} or seconds < 5
    assert statuses(database)
