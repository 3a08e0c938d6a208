"""Does a crash lose a job, invent one, or run one twice for no reason? Kills a service again and again.

While clients submit jobs and jobs run, the worker process, or all of the service, gets a SIGKILL at a random
moment and is started again: in one round of four before it even answers. In the end, when nothing is left to
do, every job that was acknowledged must be completed, none may be there that nobody sent, and only a job that
was running at a kill may have run more than once. Run it from the top of the checkout:

    .venv/bin/python -m tests.crashes --rounds 200
"""

import argparse
import bisect
import contextlib
import itertools
import json
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final, NamedTuple

from actors.store.room import MOST_EACH
from tests.recording import drain, recording
from tests.records import TYPE, Execution, Stored, executions, overlaps, stored
from tests.service import PATIENCE, Service, eventually

CLIENTS: Final = 8
WORKERS: Final = 4
#: Seconds that a job takes at the most.
LONGEST_JOB: Final = 0.01
#: Seconds of load before a kill at the most.
LONGEST_LIFE: Final = 2.0
#: Seconds from a kill to the next at the most, if that is not to wait until the service is well.
SOON: Final = 0.5
#: Seconds from a kill until an interrupted job has to run again.
RECOVERY: Final = 3.0


class Kill(NamedTuple):
    """A crash that was made."""

    #: It came in between; threads that are busy can make that long.
    begun: float
    done: float
    #: Whether the service was left alone before until it answered.
    was_well: bool


class Clients:
    """Several threads that submit jobs on connections of their own, as fast as these are answered."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        #: Each POST has a number of its own, whether or not it is answered.
        self.numbers = itertools.count()
        #: The jobs that were answered with a 201: number → id.
        self.acknowledged: dict[int, str] = {}
        #: The status of each other answer.
        self.refusals: list[int] = []

    @contextlib.contextmanager
    def at_work(self, port: int) -> Iterator[None]:
        """Submit jobs until the end of the block, or of the service."""
        stopped = threading.Event()
        with ThreadPoolExecutor(CLIENTS) as threads:
            works = [threads.submit(self._work, port, stopped) for _ in range(CLIENTS)]
            try:
                yield
            finally:
                stopped.set()
        for work in works:
            work.result()

    def _work(self, port: int, stopped: threading.Event) -> None:
        with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
            while not stopped.is_set():
                number = next(self.numbers)
                payload = {"number": number, "seconds": self._chance.choice((0, 0, LONGEST_JOB))}
                body = json.dumps({"type": TYPE, "payload": payload})
                try:
                    connection.request("POST", "/jobs", body, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    content = answer.read()
                except (ConnectionError, HTTPException):
                    return  # Nobody knows whether that job exists.
                if answer.status == 201:
                    self.acknowledged[number] = json.loads(content)["id"]
                else:
                    self.refusals.append(answer.status)


class Report(NamedTuple):
    """What was seen."""

    sent: int
    acknowledged: int
    jobs: int
    runs: int
    attempts: int
    #: Jobs that ran more than once.
    repeated: int
    #: Jobs that failed because they ran at so many kills in a row.
    given_up: int
    #: Seconds from a kill until each job that it interrupted ran again.
    recoveries: list[float]
    faults: list[str]


def crashed(folder: Path, rounds: int, chance: random.Random, life: float = LONGEST_LIFE) -> Report:
    """Kill a service so often, let it finish its work, and look at everything."""
    clients, kills = Clients(chance), list[Kill]()
    while len(kills) < rounds:
        with recording(folder, GOFER_WORKERS=WORKERS) as service:
            is_there = True
            while is_there and len(kills) < rounds:
                is_there = chance.random() < 0.5
                kills.append(crash(service, clients, chance, life, whole=not is_there))
    with recording(folder, GOFER_WORKERS=WORKERS) as service:
        eventually(service.is_well)
        drain(service)
        assert service.stop(signal.SIGTERM).code == 0
    return judged(folder, clients, kills)


def crash(service: Service, clients: Clients, chance: random.Random, life: float, *, whole: bool) -> Kill:
    """Kill the service, or its worker process, which is replaced, at a random moment."""
    was_well = chance.random() < 0.75
    if was_well:
        eventually(service.is_well)
    with clients.at_work(service.port) if was_well else contextlib.nullcontext():
        time.sleep(chance.uniform(0, life if was_well else SOON))
        begun = time.monotonic()
        if whole:
            os.killpg(service.master.pid, signal.SIGKILL)
            done = time.monotonic()
        else:
            booted = workers(service)
            os.kill(booted[-1], signal.SIGKILL)
            done = time.monotonic()
            eventually(lambda: workers(service) != booted)
    return Kill(begun, done, was_well)


def workers(service: Service) -> list[int]:
    """Return the process ids of all workers so far."""
    return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", service.log)]


def judged(folder: Path, clients: Clients, kills: list[Kill]) -> Report:
    """Compare what was acknowledged, what is stored and what was run."""
    sent, jobs, runs = next(clients.numbers), stored(folder / "jobs.db"), executions(folder / "records")
    ids, by_number = {job.id: job for job in jobs}, defaultdict[int, list[Execution]](list)
    for run in runs:
        by_number[run.number].append(run)
    given_up = {job.id for job in jobs if is_given_up(job)}
    is_done = {job.id for job in jobs if job.status == "completed"} | given_up
    wrong: dict[str, list[object]] = {
        "lost": [number for number, job_id in clients.acknowledged.items() if job_id not in ids],
        "mixed up": [n for n, i in clients.acknowledged.items() if i in ids and ids[i].number != n],
        "of nobody": [job for job in jobs if not 0 <= job.number < sent],
        "stored twice": [n for n, count in Counter(job.number for job in jobs).items() if count > 1],
        "not completed": [job for job in jobs if job.id not in is_done],
        "never run": [job for job in jobs if job.number not in by_number],
        "run without being stored": list(by_number.keys() - {job.number for job in jobs}),
        "run more often than claimed": [job for job in jobs if len(by_number[job.number]) > job.attempts],
        "more attempts than runs and reservations": more_attempts(jobs, len(runs), len(kills)),
        "run again without a kill": list(unexplained(by_number, kills)),
        "run by two processes at once": list(overlaps(runs)),
        "refused": list(clients.refusals),
    }
    return Report(
        sent=sent,
        acknowledged=len(clients.acknowledged),
        jobs=len(jobs),
        runs=len(runs),
        attempts=sum(job.attempts for job in jobs),
        repeated=sum(len(again) > 1 for again in by_number.values()),
        given_up=len(given_up),
        recoveries=sorted(recoveries(by_number, kills)),
        faults=[f"{len(found)} {what}: {found[:3]}" for what, found in wrong.items() if found],
    )


def is_given_up(job: Stored) -> bool:
    """Tell whether the job was taken to be the cause of the crashes; jobs this short seldom are."""
    return job.status == "failed" and (job.last_error or "").startswith("the process crashed during each of")


def more_attempts(jobs: list[Stored], runs: int, kills: int) -> list[object]:
    """Return how many attempts were counted beyond the runs, if more than could be reserved at the kills."""
    excess = sum(job.attempts for job in jobs) - runs
    return [excess] if excess > kills * MOST_EACH * WORKERS else []


def unexplained(runs: dict[int, list[Execution]], kills: list[Kill]) -> Iterator[Execution]:
    """Yield the runs that followed another of the same job without a kill in between."""
    ends = [kill.done for kill in kills]
    for again in runs.values():
        for before, after in itertools.pairwise(again):
            first = bisect.bisect(ends, before.started)
            if first == len(kills) or kills[first].begun > after.started:
                yield after


def recoveries(runs: dict[int, list[Execution]], kills: list[Kill]) -> Iterator[float]:
    """Yield the seconds from a kill to the next run of a job that it interrupted.

    Only from those kills after which the service was left alone until it answered.
    """
    for kill, following in itertools.pairwise([*kills, Kill(0, 0, was_well=True)]):
        if following.was_well:
            for again in runs.values():
                for before, after in itertools.pairwise(again):
                    if before.ended is None and before.started < kill.done < after.started:
                        yield after.started - kill.begun


def p99(recoveries: list[float]) -> float:
    return recoveries[len(recoveries) * 99 // 100]


def told(report: Report) -> Iterator[str]:
    """Yield what was seen, in lines."""
    again = report.recoveries
    yield f"{report.sent} sent, {report.acknowledged} acknowledged, {report.jobs} stored"
    yield f"{report.runs} runs, {report.attempts} attempts counted"
    yield f"{report.repeated} jobs ran more than once, {report.given_up} were given up"
    if again:
        yield f"{len(again)} interrupted jobs ran again after so many seconds:"
        yield f"p50 {statistics.median(again):.2f}, p99 {p99(again):.2f}, longest {again[-1]:.2f}"
    yield from report.faults or ["nothing lost, nothing invented, nothing run twice without a kill"]


def main() -> None:
    """Print what was seen; exit with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200, help="how many kills (200)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    sys.stdout.write(f"{options.rounds} kills, seed {options.seed}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as folder:
        report = crashed(Path(folder), options.rounds, random.Random(options.seed))
    sys.stdout.writelines(f"{line}\n" for line in told(report))
    sys.exit(bool(report.faults) or not report.recoveries or p99(report.recoveries) > RECOVERY)


if __name__ == "__main__":
    main()
