"""How a start recovers a file with very many pending jobs: how soon, with how much memory, in which order.

A recovery must not queue a message for each pending job at once: it feeds the channel from the file, a page
at a time. So its memory does not depend on how many jobs there are, and the first runs at once.

    .venv/bin/python -m tests.recovery --jobs 1000000
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from actors import Settings, Submit, start
from actors.store.database import Database
from tests.calling import count_again
from tests.storage import report

TOP: Final = Path(__file__).parent.parent
#: How many runs are noted, and waited for.
RUNS: Final = 1000
#: Seconds until the first of the delayed jobs is due.
TOMORROW: Final = 86400
#: Seconds that a start and these runs may take.
LIMIT: Final = 300.0


class Recovery(NamedTuple):
    """What a start on the file has shown."""

    #: From the call of `start` until it returned, and until the first job ran.
    seconds_to_start: float
    seconds_to_first: float
    #: By how many bytes the process had grown, at its peak.
    grown: int
    #: The numbers of the jobs, in the order in which they ran.
    order: list[int]
    #: What a submit was answered meanwhile.
    submit: str


def fill(database: Path, jobs: int, delayed: int = 0) -> None:
    """Make a file with so many pending jobs, numbered in the order of their ids, after some for tomorrow."""
    made = Database(str(database))
    made._connection.execute(
        "INSERT INTO jobs (id, type, status, created_at, attempts, max_retries, run_at, payload)"
        " WITH RECURSIVE numbers (n) AS (SELECT ? UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"
        " SELECT n + ?, 'note', 'pending', 1700000000000000 + n, 0, 0, CASE WHEN n < 1 THEN ? - n END,"
        """ '{"number":' || n || '}' FROM numbers""",
        (1 - delayed, jobs, delayed, int((time.time() + TOMORROW) * 1e6)),
    )
    count_again(made)
    made.close()


def recover(database: Path, *, workers: int = 1, capacity: int = 10_000) -> Recovery:
    """Start on the file in a process of its own, run a thousand jobs, stop."""
    program = [sys.executable, "-m", "tests.recovery", "--recover", str(database)]
    numbers = ["--workers", str(workers), "--capacity", str(capacity)]
    done = subprocess.run(
        [*program, *numbers], cwd=TOP, stdout=subprocess.PIPE, text=True, timeout=LIMIT, check=True
    )
    return Recovery(**json.loads(done.stdout))


def _recover(database: str, workers: int, capacity: int) -> Recovery:
    order: list[int] = []
    firsts: list[float] = []
    is_done = threading.Event()

    def note(payload: dict[str, Any]) -> None:
        if not order:
            firsts.append(time.monotonic())
        if len(order) < RUNS:
            order.append(payload["number"])
        else:
            is_done.set()

    settings = Settings(database=database, workers=workers, capacity=capacity)
    with start(Settings(), handlers={"note": note}):
        pass  # What is imported and set up once shall not count.
    before = _peak()
    began = time.monotonic()
    with start(settings, handlers={"note": note}) as system:
        started = time.monotonic()
        try:
            system.store.ask(Submit("note", {"number": 0}))
            submit = "accepted"
        except Exception as error:  # noqa: BLE001 - the caller judges it
            submit = type(error).__name__
        assert is_done.wait(LIMIT)
        system.drain(0)
    return Recovery(started - began, firsts[0] - began, _peak() - before, order, submit)


def _peak() -> int:
    # Not ru_maxrss, in which a child starts with its parent's.
    (line,) = [
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    ]
    return int(line.split()[1]) * 1024


def main() -> None:
    """Fill a file, recover it, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--delayed", type=int, default=0, help="jobs that are not to be run before tomorrow")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--capacity", type=int, default=10_000)
    parser.add_argument("--recover", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.recover:
        report(json.dumps(_recover(options.recover, options.workers, options.capacity)._asdict()))
        return
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder, "jobs.db")
        fill(database, options.jobs, options.delayed)
        seen = recover(database, workers=options.workers, capacity=options.capacity)
    report(
        f"{options.jobs:,} pending jobs, {options.delayed:,} more for tomorrow:"
        f" started in {seen.seconds_to_start:.2f} s, the first ran after {seen.seconds_to_first:.2f} s,"
        f" grown by {seen.grown / 2**20:.1f} MiB,"
        f" ran in order: {seen.order == list(range(1, RUNS + 1))}, a submit meanwhile: {seen.submit}"
    )


if __name__ == "__main__":
    main()
