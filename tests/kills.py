"""Kills a first start, and a migration from each older version, at one storage call, then at the next.

In each run a small program starts on the file, submits a job, and notes what it was told. It is killed as it
enters the call (by strace), so that the file is left as it was between two calls. Then the file has to open,
with every job that was in it before and every job that was acknowledged, and each is run to its end.

    .venv/bin/python -m tests.kills                      # every call there is: some minutes
    .venv/bin/python -m tests.kills --step 5 --state new # every fifth, of a first start
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from actors import Await, ListJobs, Settings, Submit, start
from actors.store.schema import MIGRATIONS
from tests.storage import report
from tests.test_files import crashed, old, sql, young

TOP: Final = Path(__file__).parent.parent
#: Seconds that a run, and a job after it, may take.
LIMIT: Final = 40.0
#: That are in the files; few, so that not many calls are those of running them.
JOBS: Final = 3
#: The calls that change the files, make them durable, or lock them; all in the thread that starts.
CALLS: Final = ("openat", "pwrite64", "fdatasync", "fsync", "ftruncate", "unlink", "flock", "close")
SUFFIXES: Final = ("", "-wal", "-journal", "-lock")


def in_wal_mode(path: Path, version: int) -> None:
    """Make a file of an older version as its last stop left it."""
    old(path, version)
    sql(path, "PRAGMA journal_mode = WAL")


#: On what the program starts.
STATES: Final[dict[str, Callable[[Path], Any]]] = {
    "new": lambda _path: None,
    "crashed": partial(crashed, jobs=JOBS),
    **{
        f"{kind} {version}": partial(make, version=version)
        for version in range(1, len(MIGRATIONS))
        for kind, make in (("version", in_wal_mode), ("young version", partial(young, jobs=JOBS)))
    },
}


class Kill(NamedTuple):
    """On what it starts, and at which call of that name it ends."""

    state: str
    call: str
    number: int


def work(database: str) -> None:
    """Start, submit a job, say that it is stored, and stop."""
    with start(Settings(database=database, simulated_seconds=0)) as system:
        job = system.store.ask(Submit("email"), timeout=LIMIT)
        os.write(1, f"{job.id}\n".encode())
        system.store.ask(Await(job.id), timeout=LIMIT)


def check(kill: Kill) -> bool:
    """Kill the program; see that nothing is lost. Return False if it ended before that call."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder, "jobs.db")
        STATES[kill.state](database)
        before = _jobs(database) if database.exists() else set()
        STATES[kill.state](_emptied(database))
        told, was_killed = _run(database, kill)
        stored = _jobs(database)
        assert before | told <= stored, (kill, before, told, stored)
        assert len(stored - before) <= 1, (kill, before, stored)
        return was_killed


def _emptied(database: Path) -> Path:
    for suffix in SUFFIXES:
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    return database


def _jobs(database: Path) -> set[str]:
    """Start on the file, and run every job to its end; return their ids."""
    with start(Settings(database=str(database), workers=4, simulated_seconds=0)) as system:
        store: Any = system.store
        ids = {job.id for job in store.ask(ListJobs())}
        for wait in [store.ask(Await(job_id), block=False) for job_id in ids]:
            wait.get(timeout=LIMIT)
    return ids


def _run(database: Path, kill: Kill) -> tuple[set[str], bool]:
    """Return which jobs the program was told are stored, and whether it was killed."""
    files = [f"--trace-path={database}{suffix}" for suffix in SUFFIXES] + [f"--trace-path={database.parent}"]
    inject = ["-e", f"trace={kill.call}", "-e", f"inject={kill.call}:signal=KILL:when={kill.number}"]
    program = [sys.executable, "-m", "tests.kills", "--work-on", str(database)]
    done = subprocess.run(
        ["strace", "-f", "-o", os.devnull, *files, *inject, *program],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode in {0, -signal.SIGKILL}, (kill, done)
    return set(done.stdout.split()), done.returncode != 0


def sweep(state: str, call: str, step: int = 1) -> int:
    """Kill at the first call, then at the next, until there is none; return how many there were."""
    number = 1
    while check(Kill(state, call, number)):
        number += step
    return number // step


def main() -> None:
    """Sweep, two at a time, and print how many calls there were."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--step", type=int, default=1, help="kill only at every so many-th call")
    parser.add_argument("--state", choices=STATES, action="append", help="on what to start (all of these)")
    parser.add_argument("--call", choices=CALLS, action="append", help="at which calls (all of these)")
    parser.add_argument("--work-on", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work_on:
        work(options.work_on)
        return
    logging.disable()
    plans = [(state, call) for state in options.state or STATES for call in options.call or CALLS]

    def one(plan: tuple[str, str]) -> int | Exception:
        try:
            return sweep(*plan, step=options.step)
        except Exception as failure:  # noqa: BLE001 - the other plans still count
            return failure

    failures = 0
    with ThreadPoolExecutor(2) as pool:
        for plan, result in zip(plans, pool.map(one, plans), strict=True):
            failures += not isinstance(result, int)
            report(f"{plan}: {result}")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
