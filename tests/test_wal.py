"""The write-ahead log stays small whatever the load, and a long backlog is recovered with little memory."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from actors import Await, ListJobs, Settings, Status, Submit, start
from tests.recovery import RUNS, fill, recover
from tests.service import PATIENCE, Service, eventually, running
from tests.storage import HANDLERS, OPEN, report, statuses

MEGABYTE = 1024 * 1024
WAL_LIMIT = 32 * MEGABYTE
CLIENTS = 16
JOBS_EACH = 6
#: So many jobs of a megabyte each would not have room in the WAL together.
AT_ONCE = 64
PENDING = 100_000


class Watch:
    """Looks all the time how large a file is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_over = threading.Event()
        #: The largest size seen.
        self.largest = 0

    @classmethod
    @contextmanager
    def on(cls, path: Path) -> Iterator["Watch"]:
        """Look until the end of the block."""
        watch = cls(path)
        thread = threading.Thread(target=watch._look)
        thread.start()
        try:
            yield watch
        finally:
            watch._is_over.set()
            thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(0.002):
            if self._path.exists():
                self.largest = max(self.largest, self._path.stat().st_size)


def submit(service: Service, job: dict[str, object]) -> list[tuple[str, float]]:
    """Submit the job a few times on one connection; return the ids, and how long each answer took."""
    body = json.dumps(job)
    answers = []
    with closing(HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)) as connection:
        for _ in range(JOBS_EACH):
            began = time.monotonic()
            connection.request("POST", "/jobs", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
            assert response.status == 201, answer
            answers.append((json.loads(answer)["id"], time.monotonic() - began))
    return answers


def test_the_wal_stays_under_its_limit_while_clients_submit_large_jobs(tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    job = {"type": "email", "payload": {"text": "x" * 500_000}}
    with running(GOFER_DATABASE=database, GOFER_HANDLERS=HANDLERS, GOFER_WORKERS=4) as service:
        with Watch.on(tmp_path / "jobs.db-wal") as wal, ThreadPoolExecutor(CLIENTS) as clients:
            answers = list(clients.map(submit, [service] * CLIENTS, [job] * CLIENTS))
        eventually(lambda: not any(service.jobs(status=status, limit=1) for status in OPEN))
    ids = [job_id for some in answers for job_id, _ in some]
    waits = [wait for some in answers for _, wait in some]
    report(f"largest WAL {wal.largest / MEGABYTE:.1f} MiB, longest wait {max(waits):.3f} s")
    assert MEGABYTE < wal.largest < WAL_LIMIT
    assert statuses(database) == dict.fromkeys(sorted(ids), "completed")


@pytest.mark.parametrize(
    ("payload", "result"), [(1_000_000, 1), (1, 1_000_000)], ids=["large payloads", "large results"]
)
def test_the_wal_stays_under_its_limit_when_many_large_jobs_end_at_once(
    payload: int, result: int, tmp_path: Path
) -> None:
    may_end = threading.Event()

    def end(_payload: dict[str, str]) -> str:
        assert may_end.wait(PATIENCE)
        return "x" * result

    settings = Settings(database=str(tmp_path / "jobs.db"), workers=AT_ONCE)
    with start(settings, handlers={"end": end}) as system, Watch.on(tmp_path / "jobs.db-wal") as wal:
        job = Submit("end", {"text": "x" * payload})
        store: Any = system.store
        ids = [store.ask(job).id for _ in range(AT_ONCE)]
        eventually(lambda: not store.ask(ListJobs(status=Status.PENDING)))
        may_end.set()
        for job_id in ids:
            assert store.ask(Await(job_id)).status is Status.COMPLETED
    report(f"largest WAL {wal.largest / MEGABYTE:.1f} MiB")
    assert MEGABYTE < wal.largest < WAL_LIMIT


def test_many_pending_jobs_are_recovered_in_order_and_with_little_memory(tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    fill(database, PENDING, delayed=PENDING)
    seen = recover(database)
    report(f"first job after {seen.seconds_to_first:.2f} s, grown by {seen.grown / MEGABYTE:.1f} MiB")
    assert seen.grown < 15 * MEGABYTE
    assert seen.order == list(range(1, RUNS + 1))
    assert seen.submit == "CapacityReached"


def test_what_is_pending_beyond_the_capacity_is_run_and_then_there_is_room(tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    fill(database, 2 * RUNS)
    with running(GOFER_DATABASE=database, GOFER_CAPACITY=100, GOFER_SIMULATED_SECONDS=0) as service:
        answers: Counter[int] = Counter()

        def is_admitted() -> bool:
            answers[service.client.post("/jobs", json={"type": "email"}).status_code] += 1
            return 201 in answers

        eventually(is_admitted)
        eventually(lambda: not service.jobs(status="pending", limit=1))
        eventually(lambda: not service.jobs(status="processing", limit=1))
    assert answers.keys() == {201, 429}
    assert Counter(statuses(database).values()) == {"completed": 2 * RUNS + answers[201]}
