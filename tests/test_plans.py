"""No statement reads more rows than it returns, whatever the size of the table; SQLite counts its steps."""

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from msgspec import Raw
from msgspec.structs import replace

from actors import lifecycle
from actors.lifecycle import FIRST_ID, Job, Status
from actors.messages import ListJobs
from actors.opaque import encode
from actors.requests import Many
from actors.store import keys
from actors.store.backlog import LONG_AGO
from actors.store.database import Database
from actors.store.keys import Entry
from actors.store.rows import EPOCH

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FEW, MANY = 3_000, 300_000
#: Steps that a larger table may cost more: a level or two of its trees, and nothing for each row.
MORE = 100
#: Of eight jobs: two are pending, one is delayed, three are completed, one has failed, one is cancelled.
FILL = """
INSERT INTO jobs (id, type, status, created_at, attempts, max_retries, run_at, finished_at, finish, payload)
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {size})
SELECT n, CASE (n / 8) % 3 WHEN 0 THEN 'email' WHEN 1 THEN 'report' ELSE 'thumbnail' END,
    CASE n % 8 WHEN 0 THEN 'pending' WHEN 1 THEN 'pending' WHEN 2 THEN 'pending' WHEN 6 THEN 'failed'
        WHEN 7 THEN 'cancelled' ELSE 'completed' END,
    n, 1, 0, CASE n % 8 WHEN 2 THEN 4102444800000000 - n END,
    CASE WHEN n % 8 > 2 THEN n END, CASE WHEN n % 8 > 2 THEN n END, '{{}}'
FROM numbers
"""
#: Keys in an order of their own.
KEYS = """
INSERT INTO keys (key, body, job, jobs)
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {size})
SELECT CAST(printf('%016d', n * 7919 % 1000003) AS BLOB), x'00', n, 1 FROM numbers
"""


class Table:
    """A database of so many jobs, which counts what a statement costs."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.database = Database(":memory:")
        self.database.totals._are_kept = self.database.life._is_kept = True
        self.connection = self.database._connection
        self.connection.execute(FILL.format(size=size))
        self.connection.execute(KEYS.format(size=size))
        self.middle = f"{size // 2 // 8 * 8:016x}"

    def steps(self, work: Callable[[Database], object]) -> int:
        """Return the steps of SQLite's virtual machine for this work, which is then undone."""
        count = 0

        def step() -> None:
            nonlocal count
            count += 1

        self.connection.execute("BEGIN")
        self.connection.set_progress_handler(step, 1)
        work(self.database)
        self.connection.set_progress_handler(None, 1)
        self.database.rollback()
        return count


@pytest.fixture(scope="module")
def tables() -> Iterator[tuple[Table, Table]]:
    few, many = Table(FEW), Table(MANY)
    yield few, many
    few.database.close()
    many.database.close()


def assert_costs_the_same(tables: tuple[Table, Table], work: Callable[[Table, Database], object]) -> None:
    few, many = (table.steps(lambda database, table=table: work(table, database)) for table in tables)  # type: ignore[misc]
    assert 0 < many <= few + MORE


@pytest.mark.parametrize("order", ["oldest", "newest"])
@pytest.mark.parametrize("from_the_middle", [False, True])
@pytest.mark.parametrize(
    ("status", "job_type"), list(itertools.product([None, *Status], [None, "email", "thumbnail", "unknown"]))
)
def test_a_page_reads_no_more_than_it_returns(
    tables: tuple[Table, Table],
    status: Status | None,
    job_type: str | None,
    *,
    from_the_middle: bool,
    order: str,
) -> None:
    def read(table: Table, database: Database) -> list[Job]:
        after = table.middle if from_the_middle else None
        query = ListJobs(status, job_type, limit=50, after=after, order=order)  # type: ignore[arg-type]
        return list(database.page(query))

    assert_costs_the_same(tables, read)


def pending(table: Table, database: Database) -> Job:
    return database.existing(table.middle)[0]


def complete(table: Table, database: Database) -> None:
    claimed = lifecycle.claimed(pending(table, database), NOW)
    database.update(pending(table, database), claimed)
    database.update(claimed, lifecycle.completed(claimed, claimed.attempts, encode(1), NOW))
    database._flush()


def reserve(table: Table, database: Database) -> None:
    database.life.reserve({f"{number:016x}": True for number in range(table.size // 2, table.size // 2 + 64)})


def submit(table: Table, database: Database) -> None:
    for number in range(10):
        job_id = f"{table.size + number + 1:016x}"
        database.insert(lifecycle.submitted(job_id, "email", NOW), Raw(b"{}"))
    database._flush()


def add_keys(_table: Table, database: Database) -> None:
    for number in range(10):
        database.keys.find(b"%d" % number, b"\0")
        database.keys.add(b"%d" % number, Entry(b"\0", number, 1))
    database.keys.write()


def add_too_many_keys(table: Table, database: Database) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(keys, "MOST", table.size)
        add_keys(table, database)
    (left,) = database._connection.execute("SELECT min(number) FROM keys").fetchone()
    assert left == 11


def matching(query: Many, *statuses: Status) -> Callable[[Table, Database], object]:
    def read(table: Table, database: Database) -> list[object]:
        last = f"{table.size:016x}"
        return list(database.matching(statuses, replace(query, after=table.middle, last=last), 50))

    return read


STATEMENTS: dict[str, Callable[[Table, Database], object]] = {
    "get": pending,
    "get without the payload": lambda table, database: database.summary(table.middle),
    "a page of the backlog": lambda _, database: database.immediate(after=FIRST_ID, limit=50),
    "a later page of it": lambda table, database: database.immediate(after=table.middle, limit=50),
    "a page of delayed jobs": lambda _, database: database.delayed(after=(LONG_AGO, FIRST_ID), limit=50),
    "a later page of them": lambda table, database: database.delayed(
        after=(datetime.fromtimestamp(4102444800 - table.size / 2e6, UTC), FIRST_ID), limit=50
    ),
    "what was running at a crash": lambda _, database: database.interrupted(),
    "the last id": lambda _, database: database.last_id(),
    "the totals": lambda _, database: database.totals.write(),
    "submit": submit,
    "claim and complete": complete,
    "reserve": reserve,
    "cancel a running job": lambda table, database: database.mark_unwanted(table.middle),
    "keys": add_keys,
    "keys, if there are too many": add_too_many_keys,
    "the jobs of a key": lambda table, database: list(database.span(table.size // 2, 50)),
    "what is to be cancelled": matching(Many(), Status.PENDING, Status.PROCESSING),
    "what is to be cancelled of a type": matching(Many(type="email"), Status.PENDING, Status.PROCESSING),
    "what is to be retried": matching(Many(), Status.FAILED, Status.CANCELLED),
    "what is to be retried of a status": matching(Many(), Status.FAILED),
    "what is to be retried of no type": matching(Many(type="none"), Status.FAILED, Status.CANCELLED),
    "retention": lambda _, database: database.delete_oldest(50, failed=False),
    "retention of failed jobs": lambda _, database: database.delete_oldest(50, failed=True),
    "retention by age": lambda _, database: database.delete_oldest(50, failed=False, by=NOW),
    "retention by age, of nothing": lambda _, database: database.delete_oldest(50, failed=False, by=EPOCH),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_costs_the_same_among_many_jobs_as_among_few(
    tables: tuple[Table, Table], name: str
) -> None:
    assert_costs_the_same(tables, STATEMENTS[name])
