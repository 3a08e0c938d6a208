"""Does a reload lose anything? Reloads a service again and again, while it is at work.

Every request comes on a connection of its own, at 70% of the rate that the service was first seen to reach.
At each SIGHUP no connection may be refused or reset, no answer be an error, no job be lost or run twice, and
no pause be longer than 1.5 seconds. With `--long`, jobs of so many seconds run at each reload, some that give
way and some that do not, and requests come more slowly. Before some reloads there is one with handlers that
cannot be imported: the process that serves has to go on. Run it from the top of the checkout:

    .venv/bin/python -m tests.reloads --rounds 50
    .venv/bin/python -m tests.reloads --rounds 20 --long 40 --broken 5
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.recording import drain, recording
from tests.records import TYPE, doubled, executions, overlaps, stored
from tests.service import PATIENCE, TOP, Service, eventually

CLIENTS: Final = 32
LOAD: Final = 0.7
#: Seconds that each job takes; with these Workers many run at each reload.
SECONDS: Final = 0.01
WORKERS: Final = 8
#: Unanswered requests at the most, so that a machine that has become slower is not buried under them.
MOST_AT_ONCE: Final = 1500
#: Seconds that a reload may keep the clients waiting.
LONGEST_PAUSE: Final = 1.5
#: Requests a second at the most while long jobs run: what comes meanwhile has to be run later.
SLOW: Final = 50.0
REFUSED: Final = "the reload failed, and the service goes on as it was"
#: The types of long jobs, and how many of each are to be unfinished at each reload.
LONG: Final = ("ticks", "steps")
EACH: Final = 2


class Sent(NamedTuple):
    """A request, and what came of it."""

    number: int
    #: When it was to be sent, and when that was over.
    due: float
    done: float
    #: The status, or what went wrong instead.
    outcome: int | str
    #: The id of the job, if one was created.
    job: str | None


class Report(NamedTuple):
    """What was seen."""

    capacity: float
    sent: list[Sent]
    reloads: list[float]
    #: The longest time without an answer after each reload.
    pauses: list[float]
    faults: list[str]


async def post(port: int, number: int, due: float, seconds: float = SECONDS, *, slow: float = 0) -> Sent:
    """Submit a job on a connection of its own, `slow` seconds after that was made."""
    body = json.dumps({"type": TYPE, "payload": {"number": number, "seconds": seconds}})
    request = (
        "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    step = "connecting"
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            step = "sending"
            await asyncio.sleep(slow)
            writer.write(request.encode())
            step = "reading"
            head, _, content = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
    except OSError as error:
        return Sent(number, due, time.monotonic(), f"{type(error).__name__} while {step}", None)
    if not head:
        return Sent(number, due, time.monotonic(), "closed without an answer", None)
    status = int(head.split(maxsplit=2)[1])
    job = json.loads(content)["id"] if status == 201 else None
    return Sent(number, due, time.monotonic(), status, job)


async def capacity(port: int, numbers: Iterator[int], seconds: float) -> tuple[float, list[Sent]]:
    """Return how many requests a second are answered when clients send one after the other."""
    begun = time.monotonic()

    async def client() -> list[Sent]:
        sent = []
        while (now := time.monotonic()) < begun + seconds:
            sent.append(await post(port, next(numbers), now))
        return sent

    sent = list(itertools.chain(*await asyncio.gather(*(client() for _ in range(CLIENTS)))))
    return len(sent) / (time.monotonic() - begun), sent


async def load(port: int, numbers: Iterator[int], rate: float, stopped: asyncio.Event) -> list[Sent]:
    """Send at this rate, whether or not answers come."""
    begun, requests = time.monotonic(), list[asyncio.Future[Sent]]()
    places = asyncio.Semaphore(MOST_AT_ONCE)
    for count in itertools.count():
        due = begun + count / rate
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if stopped.is_set():
            return await asyncio.gather(*requests)
        await places.acquire()
        requests.append(asyncio.ensure_future(post(port, next(numbers), due)))
        requests[-1].add_done_callback(lambda _: places.release())
    raise AssertionError


class Plan(NamedTuple):
    """What reloads are made."""

    rounds: int
    #: Seconds that the long jobs take; 0 for none.
    long: float = 0
    grace: int = 25
    #: How many of the reloads come after one with handlers that cannot be imported.
    broken: int = 0


class Handlers:
    """The module of the service's handlers, which can be broken."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "changing.py"
        self.mend()

    def mend(self) -> None:
        self._file.write_text("from tests.records import handlers\n")

    def spoil(self) -> None:
        self._file.write_text("from tests.records import nothing\n")


class LongJobs:
    """Jobs that run at each reload. Their numbers are below 0."""

    def __init__(self, service: Service, seconds: float) -> None:
        self._client = service.client
        self._seconds = seconds
        self._numbers = itertools.count(-1, -1)
        self.sent: list[Sent] = []

    def replenish(self) -> None:
        """See that enough of them are unfinished."""
        for job_type in LONG if self._seconds else ():
            unfinished = sum(len(self._listed(job_type, status)) for status in ("pending", "processing"))
            for _ in range(EACH - unfinished):
                payload = {"number": (number := next(self._numbers)), "seconds": self._seconds}
                answer = self._client.post("/jobs", json={"type": job_type, "payload": payload})
                job = answer.raise_for_status().json()["id"]
                now = time.monotonic()
                self.sent.append(Sent(number, now, now, 201, job))

    def _listed(self, job_type: str, status: str) -> list[object]:
        found: list[object] = self._client.get("/jobs", params={"type": job_type, "status": status}).json()
        return found


async def attack(
    service: Service, handlers: Handlers, plan: Plan, measuring: float, chance: random.Random
) -> Report:
    """Reload under load."""
    numbers, stopped, reloads = itertools.count(), asyncio.Event(), []
    rate, earlier = await capacity(service.port, numbers, measuring)
    longs, chosen = LongJobs(service, plan.long), set(chance.sample(range(plan.rounds), plan.broken))
    used = min(SLOW, LOAD * rate) if plan.long else LOAD * rate
    loading = asyncio.ensure_future(load(service.port, numbers, used, stopped))
    for number in range(plan.rounds):
        await asyncio.to_thread(longs.replenish)
        await asyncio.sleep(chance.uniform(0.3, 0.8))  # of load, at whatever moment of it
        if number in chosen:
            await asyncio.to_thread(reload_in_vain, service, handlers)
        reloads.append(time.monotonic())
        await asyncio.to_thread(reload, service, plan.grace + PATIENCE)
    await asyncio.sleep(0.5)  # of load on the last process
    stopped.set()
    sent = sorted([*await loading, *longs.sent], key=lambda one: one.done)
    return Report(rate, earlier + sent, reloads, pauses(sent, reloads), [])


def reload(service: Service, patience: float) -> None:
    booted = service.log.count("ASGI server listening")
    service.master.send_signal(signal.SIGHUP)
    eventually(lambda: service.log.count("ASGI server listening") > booted, patience)


def reload_in_vain(service: Service, handlers: Handlers) -> None:
    """Reload with handlers that cannot be imported."""
    refused = service.log.count(REFUSED)
    handlers.spoil()
    service.master.send_signal(signal.SIGHUP)
    eventually(lambda: service.log.count(REFUSED) > refused)
    handlers.mend()


def pauses(sent: list[Sent], reloads: list[float]) -> list[float]:
    """Return the longest time without an answer after each reload and before the next."""
    answers = sorted(one.done for one in sent if isinstance(one.outcome, int))
    found = []
    for begin, end in itertools.pairwise([*reloads, max(one.done for one in sent)]):
        times = [begin, *(moment for moment in answers if begin < moment < end), end]
        found.append(max(after - before for before, after in itertools.pairwise(times)))
    return found


def faults(sent: list[Sent], database: Path, records: Path) -> list[str]:
    """Return what should not have happened, in words."""
    found = [
        f"{count} times {what}" for what, count in Counter(one.outcome for one in sent).items() if what != 201
    ]
    jobs = {job.id: job for job in stored(database)}
    lost = [one.number for one in sent if one.job is not None and one.job not in jobs]
    unfinished = Counter((job.status, job.attempts) for job in jobs.values() if job.number >= 0)
    del unfinished["completed", 1]
    unfinished += Counter(
        (job.status, job.attempts) for job in jobs.values() if job.number < 0 and job.status != "completed"
    )
    runs = Counter(run.number for run in executions(records) if run.number >= 0 or run.ended is not None)
    again = [number for number, count in runs.items() if count > 1]
    unexpected = {job.number for job in jobs.values()} - {one.number for one in sent}
    never = {job.number for job in jobs.values()} - set(runs)
    found += [f"{len(lost)} lost: {lost[:5]}"] * bool(lost)
    found += [f"{len(again)} run twice: {again[:5]}"] * bool(again)
    found += [f"{len(never)} never run"] * bool(never)
    found += [f"{len(unexpected)} of nobody"] * bool(unexpected)
    found += [f"{len(jobs)} jobs of {len(sent)} requests"] * (len(jobs) > len(sent))
    found += [f"{count} times {status} after {attempts}" for (status, attempts), count in unfinished.items()]
    found += [f"two processes at once: {pair}" for pair in overlaps(executions(records))]
    found += [f"one job in two processes at once: {pair}" for pair in doubled(records)]
    return found


def reloaded(folder: Path, plan: Plan, *, measuring: float, chance: random.Random) -> Report:
    """Reload a service so often, let it finish its work, and look at everything."""
    handlers = Handlers(folder)
    with recording(
        folder,
        GOFER_HANDLERS="changing:handlers",
        GOFER_WORKERS=WORKERS,
        GOFER_GRACE=plan.grace,
        PYTHONPATH=f"{folder}{os.pathsep}{TOP}",
        PYTHONDONTWRITEBYTECODE=1,
    ) as service:
        eventually(service.is_well)
        report = asyncio.run(attack(service, handlers, plan, measuring, chance))
        drain(service)
        assert service.stop(signal.SIGTERM).code == 0
        bad = [f"logged: {line}" for line in service.log.splitlines() if is_bad(line)]
    return report._replace(faults=faults(report.sent, folder / "jobs.db", folder / "records") + bad)


def is_bad(line: str) -> bool:
    return "Traceback" in line or "SIGKILL" in line or ('"level": "error"' in line and REFUSED not in line)


def told(report: Report) -> Iterator[str]:
    """Yield what was seen, in lines."""
    waits = sorted(one.done - one.due for one in report.sent)
    yield f"capacity {report.capacity:.0f} requests/s, load at the most {LOAD * report.capacity:.0f}"
    yield f"{len(report.sent)} requests: {dict(Counter(one.outcome for one in report.sent))}"
    yield f"pauses: median {statistics.median(report.pauses):.2f} s, longest {max(report.pauses):.2f} s"
    yield f"answers: median {statistics.median(waits):.3f} s, longest {waits[-1]:.2f} s"
    yield from report.faults or ["nothing lost, nothing refused, nothing run twice"]


def main() -> None:
    """Print what was seen; exit with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50, help="how many reloads (50)")
    parser.add_argument(
        "--long", type=float, default=0, help="seconds of jobs that run at each reload (none)"
    )
    parser.add_argument("--grace", type=int, default=25, help="GOFER_GRACE (25)")
    parser.add_argument("--broken", type=int, default=0, help="how many more with broken handlers (0)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    sys.stdout.write(f"{options.rounds} reloads, seed {options.seed}\n")
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(options.rounds, options.long, options.grace, options.broken)
        report = reloaded(Path(folder), plan, measuring=3, chance=random.Random(options.seed))
    sys.stdout.writelines(f"{line}\n" for line in told(report))
    slowest = max(one.done - one.due for one in report.sent)
    sys.exit(bool(report.faults) or max(slowest, *report.pauses) > LONGEST_PAUSE)


if __name__ == "__main__":
    main()
