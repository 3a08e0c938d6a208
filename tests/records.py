"""A handler that writes down when it runs, and what its record says.

Give `GOFER_HANDLERS=tests.records:handlers` and `RECORDS=path`. The payload has a "number", which is to be
unique, and the "seconds" that the job is to take. The monotonic clock is one for all processes.
"""

import functools
import itertools
import os
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

TYPE: Final = "record"
#: Seconds between two signs of life of a long run.
TICK: Final = 0.02


class Execution(NamedTuple):
    """One run of a handler."""

    number: int
    pid: int
    started: float
    #: None if the process was killed before the end.
    ended: float | None


class Stored(NamedTuple):
    """A job as it is in the file."""

    id: str
    number: int
    status: str
    attempts: int
    last_error: str | None


@functools.cache
def _file() -> int:
    return os.open(os.environ["RECORDS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def note(event: str, number: int) -> None:
    """Add a line, in one write, so that lines of several threads and processes never mix."""
    os.write(_file(), f"{event} {number} {os.getpid()} {time.monotonic():.6f}\n".encode())


def record(payload: dict[str, Any]) -> int:
    """Take as long as the payload says."""
    note("start", payload["number"])
    time.sleep(payload.get("seconds", 0))
    note("end", payload["number"])
    return os.getpid()


def steps(payload: dict[str, Any]) -> Iterator[None]:
    """Take as long, and give way in between."""
    note("start", payload["number"])
    end = time.monotonic() + payload["seconds"]
    while time.monotonic() < end:
        note("tick", payload["number"])
        yield
        time.sleep(TICK)
    note("end", payload["number"])


def ticks(payload: dict[str, Any]) -> None:
    """Take as long, and do not give way."""
    for _ in steps(payload):
        pass


def until(payload: dict[str, Any]) -> None:
    """Go on until the file is there, and do not give way."""
    note("start", payload["number"])
    while not Path(payload["file"]).exists():
        note("tick", payload["number"])
        time.sleep(TICK)
    note("end", payload["number"])


def abort(payload: dict[str, Any]) -> None:
    """Bring the process down, when its other jobs have begun."""
    note("start", payload["number"])
    time.sleep(payload["seconds"])
    os.abort()


def fork(payload: dict[str, Any]) -> int:
    """Leave a child behind that does nothing for so many seconds; return its process id."""
    child = os.fork()
    if not child:
        time.sleep(payload["seconds"])
        os._exit(0)
    return child


class Late(msgspec.Struct):
    """A payload that the JobStore takes some seconds to check."""

    number: int
    seconds: float

    def __post_init__(self) -> None:
        note("check", self.number)
        time.sleep(self.seconds)


def late(payload: Late) -> int:
    """Do nothing."""
    return payload.number


handlers = {
    TYPE: record,
    "steps": steps,
    "ticks": ticks,
    "until": until,
    "abort": abort,
    "fork": fork,
    "late": late,
}


def executions(records: Path) -> list[Execution]:
    """Return all runs, in the order in which they started."""
    begun: dict[tuple[int, int], list[float]] = defaultdict(list)
    found: list[Execution] = []
    for line in records.read_text().splitlines() if records.exists() else ():
        event, number, pid, seconds = line.split()
        run = (int(number), int(pid))
        if event == "start":
            begun[run].append(float(seconds))
        elif event == "end":
            found.append(Execution(*run, begun[run].pop(0), float(seconds)))
    found += [Execution(*run, start, None) for run, starts in begun.items() for start in starts]
    return sorted(found, key=lambda execution: execution.started)


def overlaps(runs: list[Execution]) -> list[tuple[Execution, Execution]]:
    """Return the first run of each process that began before another process's last one was over.

    A run without an end says nothing of when it was over: it counts for the moment in which it began.
    """
    first: dict[int, Execution] = {}
    last: dict[int, Execution] = {}
    for run in runs:
        first.setdefault(run.pid, run)
        if run.pid not in last or _over(run) > _over(last[run.pid]):
            last[run.pid] = run
    order = sorted(first, key=lambda pid: first[pid].started)
    return [
        (last[before], first[after])
        for number, after in enumerate(order)
        for before in order[:number]
        if _over(last[before]) > first[after].started
    ]


def doubled(records: Path) -> list[tuple[int, int, int]]:
    """Return each run that went on when another process had begun to run the same: number, pids."""
    last: dict[int, dict[int, float]] = defaultdict(dict)
    first: dict[int, dict[int, float]] = defaultdict(dict)
    for line in records.read_text().splitlines():
        _, number, pid, seconds = line.split()
        first[int(number)].setdefault(int(pid), float(seconds))
        last[int(number)][int(pid)] = float(seconds)
    return [
        (number, one, other)
        for number, begun in first.items()
        for one, other in itertools.permutations(begun, 2)
        if begun[one] < begun[other] < last[number][one]
    ]


def stored(database: Path) -> list[Stored]:
    """Return all jobs as they are in the file, which nobody may own."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT id, payload, status, attempts, last_error FROM jobs").fetchall()
    return [Stored(f"{row[0]:016x}", msgspec.json.decode(row[1])["number"], *row[2:]) for row in rows]


def _over(run: Execution) -> float:
    return run.started if run.ended is None else run.ended
