"""Does each attempt on an executor run once? Interrupts a service at random while its jobs run on a cluster.

A stop, a reload, a killed worker process, a lost client: after each, what ran on the cluster goes on there or
is lost, and in neither case may it be given back as if it had not begun. By the handlers' own record no job
runs more often than it has attempts, none is failed by its executor, and with GOFER_ON_CRASH=fail none runs
twice. Run it from the top of the checkout:

    .venv/bin/python -m tests.executors --rounds 50           # on a small cluster that behaves as Dask's
    .venv/bin/python -m tests.executors --rounds 20 --dask    # on Dask, if `distributed` is installed here
"""

import argparse
import contextlib
import importlib.util
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final, Self

import httpx

from tests.cluster import cluster, hold
from tests.records import TYPE, Stored, executions, record, stored
from tests.service import TOP, Service, eventually, starting

WORKERS: Final = 8
FAULTS: Final = ("lose", "reload", "kill", "stop")
#: Seconds that a job takes at most, and between two interruptions.
LONGEST: Final = 1.5
BETWEEN: Final = 2.5

handlers: Final = {TYPE: record, "hold": hold}


class Trial:
    """A service on a file in a folder, and its cluster; both are started again as often as needed."""

    def __init__(self, folder: Path, on_crash: str, *, dask: bool = False) -> None:
        self.folder = folder
        self.records = folder / "records"
        self._on_crash = on_crash
        self._dask = dask
        self._stack = contextlib.ExitStack()
        self._cluster = contextlib.ExitStack()
        self._running = contextlib.ExitStack()
        self.service: Service

    def __enter__(self) -> Self:
        self._stack.push(self._cluster)
        self._stack.push(self._running)
        self._start_cluster()
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def interrupt(self, fault: str) -> None:
        """Let one thing go wrong, or be stopped."""
        match fault:
            case "lose" if self._dask:
                self._cluster.close()
                self._start_cluster()
            case "lose":
                self._process.send_signal(signal.SIGUSR1)
            case "reload":
                self.service.master.send_signal(signal.SIGHUP)
            case "kill":
                pid = re.findall(r"Booting worker with pid: (\d+)", self.service.log)[-1]
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            case "stop":
                self.stop()
                self._start()

    def stop(self) -> list[Stored]:
        """Stop the service, and return its jobs."""
        assert self.service.stop(signal.SIGTERM).code == 0, self.service.log
        self._running.close()
        return stored(self.folder / "jobs.db")

    def submit(self, jobs: list[dict[str, Any]], job_type: str) -> None:
        for payload in jobs:
            self.service.client.post("/jobs", json={"type": job_type, "payload": payload}).raise_for_status()

    def runs(self) -> Counter[int]:
        """Return how often each job has begun to run."""
        return Counter(run.number for run in executions(self.records))

    def wait_for_runs(self, count: int) -> None:
        """Wait until so many have begun."""
        eventually(lambda: self.runs().total() == count)

    def wait_for(self, count: int, status: str) -> None:
        """Wait until so many jobs have this status."""
        eventually(lambda: self.count(status) == count)

    def count(self, status: str) -> int:
        """Return how many jobs have this status, as far as they fit a page; -1 if nobody answers."""
        with contextlib.suppress(httpx.HTTPError):
            return len(self.service.jobs(status=status))
        return -1

    def _start(self) -> None:
        self.service = self._running.enter_context(
            starting(
                GOFER_DATABASE=self.folder / "jobs.db",
                GOFER_HANDLERS="tests.executors:handlers",
                GOFER_EXECUTOR="tests.executors:dask" if self._dask else "tests.cluster:executor",
                GOFER_ON_CRASH=self._on_crash,
                GOFER_WORKERS=WORKERS,
                GOFER_GRACE=1,
                CLUSTER=self._address,
            )
        )
        eventually(self.service.is_well)

    @property
    def _address(self) -> str:
        return "tcp://127.0.0.1:18786" if self._dask else str(self.folder / "cluster")

    def _start_cluster(self) -> None:
        if self._dask:
            self._cluster.enter_context(dask_cluster(self.records))
        else:
            self._process = self._cluster.enter_context(cluster(Path(self._address), self.records))


def dask() -> Executor:
    """Return an executor on the Dask cluster of the trial."""
    from distributed import Client  # noqa: PLC0415 - only here is it needed

    executor: Executor = Client(os.environ["CLUSTER"], timeout=10).get_executor(pure=False)
    return executor


@contextlib.contextmanager
def dask_cluster(records: Path) -> Iterator[None]:
    """Run a Dask cluster of two processes on this machine, and kill it in the end."""
    code = (
        "import sys, distributed\n"
        "if __name__ == '__main__':\n"
        "    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=8, scheduler_port=18786,"
        " dashboard_address=None)\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    program = records.with_name("dask_cluster.py")
    program.write_text(code)
    process = subprocess.Popen(
        [sys.executable, program],
        cwd=TOP,
        env={**os.environ, "RECORDS": str(records), "PYTHONPATH": str(TOP)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


# The short form: whatever is interrupted has begun.


def interrupted(trial: Trial, faults: tuple[str, ...], *, once: bool) -> list[Stored]:
    """Interrupt jobs that all run in each of these ways, then let them end, and return them.

    If each may run only once, there are other jobs for each fault.
    """
    until = trial.folder / "until"
    sets = range(len(faults)) if once else range(1)
    numbers = [range(n * WORKERS, (n + 1) * WORKERS) for n in sets]
    for count, fault in enumerate(faults):
        if once or count == 0:
            jobs = [{"number": n, "until": str(until)} for n in numbers[count]]
            trial.submit(jobs, "hold")
        trial.wait_for_runs(WORKERS * (count + 1))
        trial.interrupt(fault)
        if once:
            trial.wait_for(WORKERS * (count + 1), "failed")
    if not once:
        trial.wait_for_runs(WORKERS * (len(faults) + 1))
        until.touch()
        trial.wait_for(WORKERS, "completed")
    return trial.stop()


# The long form: at any moment.


def attacked(trial: Trial, rounds: int, chance: random.Random) -> list[Stored]:
    """Interrupt the service at random moments under load, and return its jobs when all are finished."""
    number = 0
    for _ in range(rounds):
        count = chance.randrange(3 * WORKERS)
        jobs = [{"number": number + n, "seconds": round(chance.uniform(0, LONGEST), 3)} for n in range(count)]
        eventually(trial.service.is_well)
        trial.submit(jobs, TYPE)
        number += count
        time.sleep(chance.uniform(0, BETWEEN))
        trial.interrupt(chance.choice(FAULTS))
    unfinished = None
    deadline = time.monotonic() + 600
    while unfinished != 0:
        assert time.monotonic() < deadline, trial.service.log
        time.sleep(0.2)
        found = [trial.count(status) for status in ("pending", "processing")]
        unfinished = -1 if -1 in found else sum(found)
    return trial.stop()


def faults_of(jobs: list[Stored], runs: Counter[int], *, once: bool) -> Iterator[str]:
    """Say what must not be."""
    for job in jobs:
        ran = runs[job.number]
        told = (
            f"job {job.number} is {job.status} after {job.attempts} attempts and {ran} runs: {job.last_error}"
        )
        is_bad = ran > job.attempts or job.status not in ("completed", "failed")
        if once:
            is_bad |= ran > 1 or job.attempts > 1
            is_bad |= job.status == "failed" and "(GOFER_ON_CRASH=fail)" not in (job.last_error or "")
        else:
            is_bad |= job.status != "completed"
        if is_bad:
            yield told


def main() -> None:
    """Attack a service, once for each GOFER_ON_CRASH, and say how that went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--dask", action="store_true")
    options = parser.parse_args()
    if options.dask and importlib.util.find_spec("distributed") is None:
        sys.stdout.write("skipped: `distributed` is not installed here\n")
        return
    bad = 0
    for on_crash in ("retry", "fail"):
        with (
            tempfile.TemporaryDirectory() as folder,
            Trial(Path(folder), on_crash, dask=options.dask) as trial,
        ):
            jobs = attacked(trial, options.rounds, random.Random(options.seed))
            runs = trial.runs()
            found = list(faults_of(jobs, runs, once=on_crash == "fail"))
        sys.stdout.writelines(f"{fault}\n" for fault in found)
        statuses = ", ".join(f"{count} {status}" for status, count in Counter(j.status for j in jobs).items())
        attempts = sum(job.attempts for job in jobs)
        sys.stdout.write(
            f"GOFER_ON_CRASH={on_crash}, seed {options.seed}, {options.rounds} interruptions: "
            f"{len(jobs)} jobs ({statuses}), {attempts} attempts, {runs.total()} runs, {len(found)} wrong\n"
        )
        bad += len(found)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
