"""A disk that is full for a while, and has room again: nothing is lost, and nobody restarts anything."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import service as services
from tests.service import Service, eventually, running
from tests.storage import HANDLERS, cpu_seconds, statuses

MEGABYTES = 8
#: More than one batch, and more than would be noticed by anything that looks at each.
PENDING = 600
#: A few pages of the database.
FILLING = {"type": "email", "payload": {"text": "x" * 20_000}}


class Disk:
    """A small disk of its own, which only the processes in its mount namespace see as such."""

    def __init__(self, holder: int, mounted_at: Path) -> None:
        self._holder = holder
        self.path = mounted_at
        #: The same folder, as it is seen from here.
        self.seen = Path(f"/proc/{holder}/root{mounted_at}")

    def command(self, command: list[str]) -> list[str]:
        """Return the command that runs this one where the disk is mounted, in the same process."""
        script = 'cd "$0" && exec "$@"'
        return [
            "nsenter",
            f"--mount=/proc/{self._holder}/ns/mnt",
            "sh",
            "-c",
            script,
            str(services.TOP),
            *command,
        ]

    def fill(self) -> None:
        """Take all the room that is left."""
        file = os.open(self.seen / "filler", os.O_WRONLY | os.O_CREAT)
        try:
            for size in (1024 * 1024, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        os.write(file, bytes(size))
        finally:
            os.close(file)

    def free(self) -> None:
        """Give the room back."""
        (self.seen / "filler").unlink()


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A disk of a few megabytes, on which the services of this test run."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("needs unshare and nsenter, on Linux: apt-get install util-linux")
    mounted_at = tmp_path / "disk"
    mounted_at.mkdir()
    script = f'mount -t tmpfs -o size={MEGABYTES}m none "$0" && echo mounted && exec cat'
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, mounted_at],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            if holder.stdout.readline() != b"mounted\n":
                pytest.skip("needs the right to mount a tmpfs: run as root, in a container with SYS_ADMIN")
            disk = Disk(holder.pid, mounted_at)
            monkeypatch.setattr(services, "COMMAND", disk.command(services.COMMAND))
            yield disk
        finally:
            holder.stdin.close()


@contextlib.contextmanager
def serving(disk: Disk) -> Iterator[Service]:
    """Run a service with its database on the disk, and with handlers that wait when told to."""
    with running(GOFER_DATABASE=disk.path / "jobs.db", GOFER_HANDLERS=HANDLERS) as service:
        yield service


def gated(service: Service, gate: Path) -> str:
    """Submit a job that runs until something is written to the gate; return it when it runs."""
    os.mkfifo(gate)
    answer = post(service, {"type": "wait", "payload": {"gate": str(gate)}})
    job_id = str(answer.raise_for_status().json()["id"])
    service.wait_for(job_id, "processing")
    return job_id


def post(service: Service, job: dict[str, Any]) -> httpx.Response:
    return service.client.post("/jobs", json=job)


def fill(disk: Disk, service: Service) -> list[str]:
    """Fill the disk until a job finds no room any more; return the jobs that still found some."""
    disk.fill()
    admitted = []
    for job in (FILLING, {"type": "email"}):  # Where a large one finds no space a small one may.
        while (answer := post(service, job)).status_code == 201:
            admitted.append(str(answer.json()["id"]))
        assert_no_room(answer)
    return admitted


def assert_no_room(answer: httpx.Response) -> None:
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    assert "full" in answer.json()["detail"]
    assert answer.elapsed.total_seconds() < 1


def assert_refusals(service: Service) -> None:
    """Ask for a while, long enough for a Worker to go on to its next job."""
    for _ in range(50):
        assert_no_room(post(service, FILLING))


def assert_reading_goes_on(service: Service, job_id: str) -> None:
    assert service.job(job_id)["status"] == "processing"
    assert len(service.jobs(limit=1000)) > PENDING
    health = service.client.get("/health")
    assert (health.status_code, "the disk is full" in health.json()["detail"]) == (503, True)


def seconds_until(condition: Any) -> float:
    start = time.monotonic()
    eventually(condition)
    return time.monotonic() - start


def test_a_full_disk_refuses_submits_and_heals_when_there_is_room_again(disk: Disk, tmp_path: Path) -> None:
    with serving(disk) as service:
        running_job = gated(service, tmp_path / "gate")
        admitted = [running_job, *service.submit(PENDING)]
        admitted += fill(disk, service)
        quiet = len(service.log.splitlines())
        assert_reading_goes_on(service, running_job)
        (tmp_path / "gate").write_text("kept")  # The running job ends, and its end cannot be stored.
        assert_refusals(service)
        assert share_of_cpu(service.worker) < 0.2
        assert_reading_goes_on(service, running_job)
        assert len(service.log.splitlines()) - quiet <= 3, service.log
        disk.free()
        assert seconds_until(lambda: service.job(running_job)["status"] == "completed") < 2
        assert service.job(running_job)["result"] == "kept"
        answer = post(service, FILLING)
        assert answer.status_code == 201
        admitted.append(answer.json()["id"])
        assert_all_completed(service, admitted)
        assert service.log.count("Booting worker") == 1
        assert service.stop(signal.SIGTERM).code == 0
    with serving(disk) as again:
        stored = {job["id"]: job["status"] for page in again.walk() for job in page}
    assert stored == dict.fromkeys(admitted, "completed")


def assert_all_completed(service: Service, admitted: list[str]) -> None:
    for status in ("pending", "processing"):
        eventually(lambda status=status: not service.jobs(status=status, limit=1))  # type: ignore[misc]
    stored = {job["id"]: job["status"] for page in service.walk() for job in page}
    assert stored == dict.fromkeys(admitted, "completed")


def share_of_cpu(pid: int) -> float:
    """Return which part of a CPU the process takes while nothing is asked of it."""
    before, start = cpu_seconds(pid), time.monotonic()
    time.sleep(1.5)  # What is measured is what happens by itself in this time.
    return (cpu_seconds(pid) - before) / (time.monotonic() - start)


def test_many_clients_at_a_full_disk_get_an_answer_within_a_second(disk: Disk, tmp_path: Path) -> None:
    with serving(disk) as service:
        gated(service, tmp_path / "gate")
        service.submit(PENDING)
        fill(disk, service)
        quiet = len(service.log.splitlines())
        with ThreadPoolExecutor(16) as clients:
            for answer in clients.map(lambda _: post(service, FILLING), range(160)):
                assert_no_room(answer)
        assert len(service.log.splitlines()) - quiet <= 1, service.log
        disk.free()
        assert seconds_until(lambda: post(service, FILLING).status_code == 201) < 2


@pytest.mark.parametrize("ends_first", [False, True], ids=["running", "with an outcome not stored"])
def test_a_stop_at_a_full_disk_ends_in_time_and_the_next_start_has_every_job(
    disk: Disk, tmp_path: Path, ends_first: bool
) -> None:
    gate = tmp_path / "gate"
    with serving(disk) as service:
        running_job = gated(service, gate)
        admitted = [running_job, *service.submit(PENDING)]
        admitted += fill(disk, service)
        if ends_first:
            gate.write_text("lost")  # The Worker then asks for the next job, and hears nothing.
            assert_refusals(service)
            exit_ = service.stop(signal.SIGTERM)
        else:
            service.drain(signal.SIGTERM)
            gate.write_text("lost")
            exit_ = service.stop(signal.SIGTERM)
        assert exit_.code == 0
        assert exit_.seconds < 5
        assert_told_what_was_lost(service, running_job)
    disk.free()
    gate.unlink()
    gate.write_text("again")
    with serving(disk) as again:
        assert_all_completed(again, admitted)
        assert again.job(running_job)["result"] == "again"
        assert again.stop(signal.SIGTERM).code == 0
    copy = shutil.copy(disk.seen / "jobs.db", tmp_path)  # SQLite would look for it on the disk seen here.
    assert statuses(Path(copy)) == dict.fromkeys(admitted, "completed")


def assert_told_what_was_lost(service: Service, job_id: str) -> None:
    """See that the log names the job whose end could not be stored, and that the stop went its usual way."""
    stop = service.log.partition("Handling signal")[2]
    assert [job_id in line for line in stop.splitlines() if "not stored before the end" in line] == [True]
    assert '"stopped"' in stop
    assert "Traceback" not in stop
    assert "SIGKILL" not in stop
