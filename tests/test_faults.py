"""Single faults of the disk; `python -m tests.faults` lets every call fail once, these are a few of them."""

import contextlib
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults import ANSWER_LIMIT, REASONS, Fault, check
from tests.service import Service, eventually, running
from tests.storage import SUFFIXES, needs_strace, statuses

pytestmark = needs_strace


@pytest.mark.parametrize(
    "fault",
    [
        Fault("closed", "pwrite64", "EIO", 1),
        Fault("closed", "pwrite64", "EIO", 30),
        Fault("closed", "fdatasync", "EIO", 2),
        Fault("closed", "fdatasync", "EIO", 9),
        Fault("closed", "fdatasync", "ENOSPC", 5),
        Fault("crashed", "pwrite64", "EIO", 3, goes_on=True),
        Fault("crashed", "openat", "EIO", 8),
    ],
    ids=str,
)
def test_a_broken_disk_ends_the_store_and_costs_nothing_that_was_acknowledged(fault: Fault) -> None:
    seen = check(fault)
    assert seen.hits
    assert "the storage is broken" in seen.log


@pytest.mark.parametrize("number", [8, 41, 78])
def test_a_write_without_room_is_refused_or_made_later(number: int) -> None:
    seen = check(Fault("closed", "pwrite64", "ENOSPC", number))
    assert seen.hits
    assert "there is disk space again" in seen.log
    assert len(seen.refusals) <= 1


@pytest.mark.parametrize(
    "fault", [Fault("new", "pwrite64", "EIO", 2), Fault("new", "fdatasync", "EIO", 2)], ids=str
)
def test_a_file_that_cannot_be_made_is_refused_and_can_be_made_later(fault: Fault) -> None:
    (refusal,) = check(fault).refusals
    assert "cannot be opened: disk I/O error" in refusal


@pytest.mark.parametrize(
    "fault",
    [
        Fault("new", "statement", "NOMEM", 16),
        Fault("closed", "statement", "MemoryError", 26),
        Fault("crashed", "statement", "CONSTRAINT", 11),
        Fault("crashed", "message", "ValueError", 6),
    ],
    ids=str,
)
def test_an_error_of_one_step_is_overcome_and_every_job_is_run(fault: Fault) -> None:
    assert check(fault).hits


@contextlib.contextmanager
def failing(service: Service, database: Path, inject: str) -> Iterator[None]:
    """Let a call of the worker's fail on the database's files."""
    files = [f"--trace-path={database}{suffix}" for suffix in SUFFIXES]
    call = inject.partition(":")[0]
    command = ["strace", "-f", "-o", "/dev/null", *files, "-e", f"trace={call}", "-e", f"inject={inject}"]
    with subprocess.Popen([*command, "-p", str(service.worker)], stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        try:
            if "attached" not in (line := strace.stderr.readline()):
                pytest.skip(f"needs the right to trace another process: {line}")
            yield
        finally:
            strace.terminate()


@pytest.mark.parametrize("inject", ["fdatasync:error=EIO:when=5", "pwrite64:error=EIO:when=20"])
def test_gunicorn_replaces_a_worker_whose_disk_is_broken_and_every_job_goes_on(
    inject: str, tmp_path: Path
) -> None:
    database = tmp_path / "jobs.db"
    with running(GOFER_DATABASE=database, GOFER_SIMULATED_SECONDS=0) as service:
        admitted = service.submit(5)
        with failing(service, database, inject):
            eventually(lambda: submits_to_another_worker(service, admitted))
        assert "the storage is broken" in service.log
        eventually(service.is_well)
        admitted += service.submit(5)
        for job_id in admitted:
            service.wait_for(job_id, "completed")
        assert service.stop(signal.SIGTERM).code == 0
    assert set(admitted) <= statuses(database).keys()


def submits_to_another_worker(service: Service, admitted: list[str]) -> bool:
    """Submit one more job; tell whether gunicorn has started another worker."""
    with contextlib.suppress(httpx.TransportError):  # It was sent to the worker that ends.
        answer = service.client.post("/jobs", json={"type": "email"})
        if answer.status_code == 201:
            admitted.append(answer.json()["id"])
        else:
            assert_storage_failed(answer)
    return service.log.count("Booting worker") == 2


def assert_storage_failed(answer: httpx.Response) -> None:
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert re.search(REASONS, answer.json()["detail"])
    assert answer.elapsed.total_seconds() < ANSWER_LIMIT
