"""Lets one system call on the database's files fail, then the next in another run, until none is left.

In each run a small program submits jobs and waits for some, and notes what it was told. After the fault
nothing that it was told may be false: a start without faults has every job that was acknowledged, every job
that was shown as completed is so, the file is sound, and every job is run to its end. No run may hang, and a
fault that kept anything from being stored is in the log. A write without room (ENOSPC) has to heal by itself;
any other fault, and that of an fdatasync whatever it says, ends the JobStore, as nobody knows what is on the
disk then.

The same with errors that no system call brings, such as a lack of memory: in one statement of SQL after the
other, and in the handling of one message after the other. They harm nothing but what they hit.

    .venv/bin/python -m tests.faults                       # every fault there is: some minutes
    .venv/bin/python -m tests.faults --step 7 --state new  # every seventh, on a new file
"""

import argparse
import contextlib
import itertools
import json
import logging
import logging.config
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import pykka
from msgspec import Raw

from actors import Await, GoferError, ListJobs, Settings, Submit, lifecycle, log, start
from actors.store.database import Database
from actors.store.ledger import Ledger
from tests.storage import SUFFIXES, peek, report, run_to_the_end

TOP: Final = Path(__file__).parent.parent
#: Seconds that the program may take with a fault, and that each of its questions may.
RUN_LIMIT: Final = 40.0
ANSWER_LIMIT: Final = 10.0
#: Seconds that it waits for a job's end, which never comes while there is no room.
AWAIT_LIMIT: Final = 3.0
#: SQLite uses no other calls to change its files, and fdatasync only to make them durable.
CALLS: Final = ("pwrite64", "fdatasync", "ftruncate", "unlink", "openat", "fsync")
ERRORS: Final = ("EIO", "ENOSPC")
#: What fails without a system call, and of what.
STEPS: Final = ("statement", "message")
CAUSES: Final[Mapping[str, Callable[[], Exception]]] = {
    "NOMEM": lambda: _sqlite_error(sqlite3.SQLITE_NOMEM),
    "CONSTRAINT": lambda: _sqlite_error(sqlite3.SQLITE_CONSTRAINT),
    "MemoryError": MemoryError,
    "ValueError": lambda: ValueError("a bug"),
}
#: On what the program starts: no file, one that was closed, one that was left by a crash.
STATES: Final = ("new", "closed", "crashed")
JOBS: Final = 3
#: What a refusal may say; the last is what one hears of an actor that has stopped.
REASONS: Final = (
    "cannot be opened|the database failed|is broken|JobStore .* not found|the JobStore has stopped"
    "|stopped before"
)


class Fault(NamedTuple):
    """The call that fails, and how; which one of its thread, and whether all later ones fail, too."""

    state: str
    call: str
    error: str
    number: int
    goes_on: bool = False

    @property
    def expression(self) -> str:
        """As strace understands it."""
        return f"inject={self.call}:error={self.error}:when={self.number}{'+' if self.goes_on else ''}"


class Run(NamedTuple):
    """What a run of the program has shown."""

    code: int
    told: list[str]
    log: str
    hits: list[str]

    @property
    def submitted(self) -> set[str]:
        """The jobs that it was told are stored."""
        return {line.split()[1] for line in self.told if line.startswith("submitted ")}

    @property
    def completed(self) -> set[str]:
        """The jobs that it was shown as completed."""
        return {line.split()[1] for line in self.told if line.startswith("completed ")}

    @property
    def refusals(self) -> list[str]:
        """The errors that it was told."""
        return [line for line in self.told if line.startswith("refused ")]


# The program.


def _sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("injected")
    error.sqlite_errorcode = code
    return error


def _fail_at(step: str, cause: str, number: int) -> None:
    """Let this statement or message fail: a statement before it is done, a message after it was handled."""
    left = itertools.count(number, -1)

    def failing(method: Callable[..., Any]) -> Callable[..., Any]:
        def failed(*values: Any) -> Any:
            is_to_fail = next(left) == 1
            answer = None if is_to_fail and step == "statement" else method(*values)
            if is_to_fail:
                _say("injected")
                error = CAUSES[cause]()
                raise error
            return answer

        return failed

    if step == "message":
        Ledger.handle = failing(Ledger.handle)  # type: ignore[method-assign]
        return
    for name in ("_execute", "_read", "commit"):
        setattr(Database, name, failing(getattr(Database, name)))


def work(database: str, failing: str | None = None) -> None:
    """Submit jobs and wait for them, and say what the answers were."""
    logging.config.dictConfig(log.config("INFO"))
    if failing is not None:
        step, cause, number = failing.split(":")
        _fail_at(step, cause, int(number))
    try:
        with start(Settings(database=database, workers=2, simulated_seconds=0)) as system:
            _say("started")
            _talk(system.store)
    except GoferError as error:
        _say(f"refused start {error}")
    _say("stopped")


def _talk(store: Any) -> None:
    for size in (10, 6_000, 10):
        for _ in range(JOBS):
            with _refusals("submit"):
                job = store.ask(Submit("email", {"text": "x" * size}), timeout=ANSWER_LIMIT)
                _say(f"submitted {job.id}")
                with _refusals("await"):
                    job = store.ask(Await(job.id), timeout=AWAIT_LIMIT)
                    _say(f"{job.status} {job.id}")
    with _refusals("list"):
        for job in store.ask(ListJobs(), timeout=ANSWER_LIMIT):
            _say(f"{job.status} {job.id}")


@contextlib.contextmanager
def _refusals(of: str) -> Iterator[None]:
    try:
        yield
    except pykka.Timeout:
        _say(f"no answer to {of}")
    except (GoferError, pykka.ActorDeadError) as error:
        _say(f"refused {of} {error}")


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


# The runs.


def prepare(state: str, database: Path) -> set[str]:
    """Make the file on which a run starts; return the jobs that are in it."""
    if state == "new":
        return set()
    before = Database(str(database))
    jobs = []
    for number in range(JOBS):
        job = lifecycle.submitted(f"{number + 1:016x}", "email", datetime.now(UTC))
        before.insert(job, Raw(b"{}"))
        if number % 2:
            before.update(job, lifecycle.claimed(job, datetime.now(UTC)))
        jobs.append(job.id)
    before.commit()
    if state == "crashed":
        for suffix in ("", "-wal"):
            shutil.copy(f"{database}{suffix}", f"{database}{suffix}.crashed")
    before.close()
    if state == "crashed":
        for suffix in ("", "-wal"):
            Path(f"{database}{suffix}.crashed").rename(f"{database}{suffix}")
    return set(jobs)


def run(database: Path, fault: Fault) -> Run:
    """Run the program with the fault."""
    if fault.call in STEPS:
        return _run_in(fault, [sys.executable, "-m", "tests.faults", "--work-on", str(database)])
    trace = database.with_name("trace")
    files = [f"--trace-path={database}{suffix}" for suffix in SUFFIXES]
    inject = ["-e", f"trace={fault.call}", "-e", fault.expression]
    program = [sys.executable, "-m", "tests.faults", "--work-on", str(database)]
    done = subprocess.run(
        ["strace", "-f", "-o", trace, *files, *inject, *program],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT,
        check=False,
    )
    hits = [line for line in trace.read_text().splitlines() if "(INJECTED)" in line]
    return Run(done.returncode, done.stdout.splitlines(), done.stderr, hits)


def _run_in(fault: Fault, program: list[str]) -> Run:
    """Run the program, which lets itself fail."""
    failing = f"{fault.call}:{fault.error}:{fault.number}"
    done = subprocess.run(
        [*program, "--failing", failing],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT,
        check=False,
    )
    told = done.stdout.splitlines()
    return Run(done.returncode, told, done.stderr, [line for line in told if line == "injected"])


def check(fault: Fault) -> Run:
    """Run with the fault, and see that nothing which the program was told is false."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder, "jobs.db")
        before = prepare(fault.state, database)
        seen = run(database, fault)
        assert seen.code == 0, (fault, seen)
        assert seen.told[-1] == "stopped", (fault, seen)
        silence = {line for line in seen.told if line.startswith("no answer")}
        may_wait = fault.error == "ENOSPC" and fault.goes_on
        assert silence <= ({"no answer to await"} if may_wait else set()), (fault, seen)
        for event in map(json.loads, seen.log.splitlines()):
            last_line = event.get("exception", "OperationalError").splitlines()[-1]
            assert "OperationalError" in last_line or fault.call in STEPS, (fault, seen)
        if seen.refusals:
            assert seen.hits, (fault, seen)
            assert all(re.search(REASONS, refusal) for refusal in seen.refusals), (fault, seen)
        is_broken = any("broken" in line for line in seen.refusals)
        assert is_broken <= ("the storage is broken" in seen.log), (fault, seen)
        if fault.error == "ENOSPC" and fault.call == "pwrite64":
            # Elsewhere SQLite takes it for an I/O error.
            assert not is_broken, (fault, seen)
        _assert_kept(database, fault, seen, before)
        return seen


def _assert_kept(database: Path, fault: Fault, seen: Run, before: set[str]) -> None:
    if not database.exists():
        assert not seen.submitted, (fault, seen)
        return
    if any("refused start" in line for line in seen.told) and fault.state == "new":
        _assert_starts(database, fault)
    stored = peek(database)
    assert before | seen.submitted <= stored.keys(), (fault, seen, stored)
    assert {stored[job_id] for job_id in seen.completed} <= {"completed"}, (fault, seen, stored)
    ended = run_to_the_end(database)
    assert ended.keys() == stored.keys(), (fault, seen, stored, ended)
    assert set(ended.values()) <= {"completed"}, (fault, seen, ended)


def _assert_starts(database: Path, fault: Fault) -> None:
    with start(Settings(database=str(database), simulated_seconds=0)) as system:
        assert system.store.ask(ListJobs()) == [], fault


def sweep(state: str, call: str, error: str, *, step: int = 1, goes_on: bool = False) -> list[Run]:
    """Let the first call fail, then the next, until there is none; return the runs."""
    runs = []
    number = 1
    while (seen := check(Fault(state, call, error, number, goes_on))).hits:
        runs.append(seen)
        number += step
    return runs


def main() -> None:
    """Sweep, two at a time, and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--step", type=int, default=1, help="let only every so many-th call fail")
    parser.add_argument("--state", choices=STATES, action="append", help="on what to start (all of these)")
    parser.add_argument(
        "--call", choices=(*CALLS, *STEPS), action="append", help="what is to fail (all of these)"
    )
    parser.add_argument("--work-on", help=argparse.SUPPRESS)
    parser.add_argument("--failing", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work_on:
        work(options.work_on, options.failing)
        return
    plans = [
        (state, call, error, goes_on)
        for state in options.state or STATES
        for call in options.call or (*CALLS, *STEPS)
        for error in (CAUSES if call in STEPS else ERRORS)
        for goes_on in ((False,) if call in STEPS else (False, True))
    ]

    def one(plan: tuple[str, str, str, bool]) -> tuple[list[Run], Exception | None]:
        state, call, error, goes_on = plan
        try:
            return sweep(state, call, error, step=options.step, goes_on=goes_on), None
        except (AssertionError, subprocess.TimeoutExpired) as failure:
            return [], failure

    logging.disable()  # The restarts look at what crashed; what the program logs is looked at in each run.
    failures = 0
    with ThreadPoolExecutor(2) as pool:
        for plan, (runs, failure) in zip(plans, pool.map(one, plans), strict=True):
            kinds = Counter(_kind(seen) for seen in runs)
            report(f"{plan}: {len(runs)} runs, {dict(kinds)}")
            if failure is not None:
                failures += 1
                report(f"FAILED: {failure}")
    sys.exit(failures > 0)


def _kind(seen: Run) -> str:
    if any("refused start" in line for line in seen.told):
        return "start refused"
    if "the storage is broken" in seen.log:
        return "broken"
    if seen.refusals:
        return "refused, went on"
    return "delayed" if "nothing of this batch" in seen.log else "unnoticed"


if __name__ == "__main__":
    main()
