"""What many stored jobs cost."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec import Raw

from actors import lifecycle
from actors.handlers import simulated
from actors.interrupts import Interrupts
from actors.lifecycle import FIRST_ID, Status
from actors.messages import ListJobs, RecoverCrashed
from actors.messaging import Channel
from actors.opaque import encode
from actors.settings import Settings
from actors.store.backlog import LONG_AGO
from actors.store.clock import Clock
from actors.store.connection import connect
from actors.store.database import Database
from actors.store.ledger import Ledger
from actors.store.rows import from_time
from tests.test_plans import FEW, FILL, Table, assert_costs_the_same

TOP = Path(__file__).parent.parent
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MANY = 100_000
#: Of SQLite, for each job that a start counts; to read the job itself would take more.
STEPS_TO_COUNT = 11
PAYLOAD = b'{"to":"user@example.com"}'

#: Sends 20,000 jobs through all their moves and prints by how many bytes each has let the process grow.
GROWTH = """
import os
from datetime import UTC, datetime
from actors.store.backlog import Backlog
from actors.store.clock import Clock
from actors.store.database import Database
from actors.handlers import simulated
from actors.interrupts import Interrupts
from actors.store.ledger import Ledger
from actors.messaging.channel import Channel
from actors.messages import Begin, Complete, Submit
from actors.settings import Settings
from actors.store.jobstore import JobStore
from actors.store.vitals import Vitals
def now():
    return datetime.now(UTC)
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
channel, delayed = Channel(), Channel()
database = Database(":memory:")
ledger = Ledger(database, Interrupts(), channel, simulated(0), Settings(keep_finished=0), Clock(now))
store = JobStore(ledger, Backlog(database, delayed, now), delayed, channel, Vitals())
def run(jobs):
    for _ in range(jobs):
        store.on_receive(Submit("email", {"to": "user@example.com"}))
        job_id = channel.take().id
        store.on_receive(Begin(job_id, 1))
        store.on_receive(Complete(job_id, 1, None))
run(1000)
before = resident()
run(20_000)
print((resident() - before) / 20_000)
"""


def full_of(jobs: int) -> Database:
    """Return a database with so many completed jobs."""
    database = Database(":memory:")
    now = datetime.now(UTC)
    done = []
    job_id = "0"
    for _ in range(jobs):
        job_id = lifecycle.new_id(now, 0, job_id)
        job = lifecycle.submitted(job_id, "email", now)
        claimed = lifecycle.claimed(job, now)
        database.insert(job, Raw(PAYLOAD))
        done.append((job, lifecycle.completed(claimed, 1, encode(None), now)))
    for before, after in done:
        database.update(before, after)
    database.commit()
    return database


@pytest.fixture(scope="module")
def many() -> Iterator[Database]:
    database = full_of(MANY)
    yield database
    database.close()


def steps(database: Database, query: ListJobs) -> int:
    """Count the steps of SQLite's virtual machine, which no other load on the machine can change."""
    ledger = Ledger(
        database, Interrupts(), Channel(), simulated(0), Settings(), Clock(lambda: NOW, lambda: 0.0)
    )
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    database._connection.set_progress_handler(step, 1)
    ledger.handle(query)
    database._connection.set_progress_handler(None, 1)
    return count


def test_a_page_costs_the_same_among_many_jobs_as_among_few(many: Database) -> None:
    few = full_of(300)
    for query in (
        ListJobs(limit=100),
        ListJobs(limit=100, order="newest"),
        ListJobs(limit=100, status=Status.COMPLETED),
        ListJobs(limit=100, status=Status.FAILED),
        ListJobs(limit=100, type="email"),
        ListJobs(limit=100, type="unknown"),
    ):
        assert 0 < steps(many, query) <= 1.3 * steps(few, query)
    few.close()


@pytest.fixture(scope="module")
def due_at_once() -> Iterator[tuple[Table, Table]]:
    """Tables whose delayed jobs are all due at the same time."""
    few, many = Table(FEW), Table(100 * FEW)
    for table in (few, many):
        table.connection.execute(f"UPDATE jobs SET run_at = {from_time(NOW)} WHERE run_at IS NOT NULL")
    yield few, many
    few.database.close()
    many.database.close()


@pytest.mark.parametrize("from_the_middle", [False, True])
@pytest.mark.parametrize("due", [LONG_AGO, NOW])
def test_a_page_of_jobs_that_are_due_at_once_reads_no_more_than_it_returns(
    due_at_once: tuple[Table, Table], due: datetime, *, from_the_middle: bool
) -> None:
    def read(table: Table, database: Database) -> None:
        after = (due, table.middle if from_the_middle else FIRST_ID)
        assert len(database.delayed(after=after, limit=100)) == 100

    assert_costs_the_same(due_at_once, read)


def steps_of_a_start(path: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Start on the file and recover; return the steps of SQLite's virtual machine for that."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    def counting(path: str, *, is_suspect: bool) -> sqlite3.Connection:
        connection = connect(path, is_suspect=is_suspect)
        connection.set_progress_handler(step, 1)
        return connection

    with monkeypatch.context() as patched:
        patched.setattr("actors.store.database.connect", counting)
        opened = Database(path)
    ledger = Ledger(
        opened, Interrupts(), Channel(), simulated(0), Settings(), Clock(lambda: NOW, lambda: 0.0)
    )
    ledger.handle(RecoverCrashed())
    opened.close()
    return count


def test_a_start_costs_the_same_among_many_jobs_as_among_few_but_for_one_pass_over_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    for size in (FEW, 100 * FEW):
        path = str(tmp_path / f"{size}.db")
        database = Database(path)
        database._connection.execute(FILL.format(size=size))
        database.close()
        steps.append(steps_of_a_start(path, monkeypatch))
    assert 0 < steps[1] - steps[0] <= STEPS_TO_COUNT * 100 * FEW


def test_a_finished_job_takes_less_than_400_bytes_of_the_database(many: Database) -> None:
    (size,) = many._connection.execute(
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    ).fetchone()
    assert 100 < size / MANY - len(PAYLOAD) < 400


def test_a_finished_job_takes_less_than_400_bytes_of_memory() -> None:
    run = subprocess.run([sys.executable, "-c", GROWTH], cwd=TOP, capture_output=True, text=True, check=True)
    assert 50 < float(run.stdout) - len(PAYLOAD) < 400
