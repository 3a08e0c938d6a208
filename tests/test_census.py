"""How many jobs there are of each type, and how long they take: right after each commit, and bounded."""

import contextlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import falcon.testing
import pytest

from actors import Settings, start
from actors.errors import StorageFailed
from actors.handlers import Handlers, simulated
from actors.lifecycle import Job, Status
from actors.messages import Cancel, Complete, CutOff, Fail, ListTypes, Release, Retry, Submit
from actors.store.census import Census, JobType
from actors.store.changes import Changes
from actors.store.database import Database
from actors.store.pages import COUNT_TYPES
from api import create_app
from tests.calling import Store, assert_census, assert_totals

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TYPES = ["email", "report", "thumbnail"]


def act(store: Store, chance: random.Random, known: list[str]) -> None:
    """Do one thing that a client or a Worker may do."""
    job_id = chance.choice(known) if known else ""
    match chance.randrange(8):
        case 0 | 1 | 2:
            retries, delay = chance.randrange(2), chance.choice([0, 0, 5])
            with contextlib.suppress(StorageFailed):
                known.append(store.ask(Submit(chance.choice(TYPES), max_retries=retries, delay=delay)).id)
        case 3:
            store.send(Cancel(job_id))
        case 4:
            store.send(Retry(job_id))
        case 5:
            store.now += (NOW - NOW.replace(second=0)) * chance.random()
            store.let_due()
        case _ if job := store.claim(job_id):
            end = chance.choice([Complete, Fail, CutOff, Release])
            rest = () if end is Release else ("gone",)
            store.send(end(job_id, job.attempts, *rest, seconds=chance.random()))


@pytest.mark.parametrize("seed", range(6))
def test_the_counts_by_type_are_those_of_the_table_after_whatever_happens(seed: int) -> None:
    chance, known = random.Random(seed), list[str]()
    store = Store(keep_finished=3, keep_failed=2)
    for step in range(300):
        store.fail_writes = 13 if chance.random() < 0.1 else None  # A full disk.
        if step % 60 == 59:
            store.fail_writes = None
            store.resume()
            store.crash()
        else:
            act(store, chance, known)
    store.fail_writes = None
    store.resume()
    assert_totals(store.database)
    assert_census(store)
    assert len({status for _, status, _ in store.database.count_types()}) >= 3


def test_a_rollback_leaves_the_counts_as_they_were() -> None:
    store = Store()
    store.ask(Submit("email"))
    store.fail_writes = 13
    store.send(Submit("report"))
    store.fail_writes = None
    assert_census(store)
    assert [shown.type for shown in store.ask(ListTypes())] == ["email"]


def test_a_start_counts_what_is_stored(tmp_path: Any) -> None:
    path = str(tmp_path / "jobs.db")
    store = Store(path)
    for _ in range(3):
        store.ask(Submit("email"))
    store.ask(Cancel(store.ask(Submit("report")).id))
    store.database.close()
    again = Store(path)
    assert_census(again)
    email, report = again.ask(ListTypes())
    assert (email.jobs[Status.PENDING], report.jobs[Status.CANCELLED]) == (3, 1)


def test_a_type_is_shown_with_its_handler_its_oldest_job_and_its_usual_times() -> None:
    def nothing(_payload: object) -> None: ...

    store = Store(handlers=Handlers({"email": nothing, "report": nothing}))
    first, second = (store.ask(Submit("email")).id for _ in range(2))
    store.now += (step := NOW.replace(second=15) - NOW)
    assert store.claim(first) is not None
    store.send(Complete(first, 1, None, seconds=0.5))
    email, report = store.ask(ListTypes())
    assert email == JobType(
        type="email",
        has_handler=True,
        jobs={**dict.fromkeys(Status, 0), Status.PENDING: 1, Status.COMPLETED: 1},
        oldest_pending_seconds=step.total_seconds(),
        mean_waiting_seconds=step.total_seconds(),
        mean_running_seconds=0.5,
    )
    assert report == JobType(type="report", has_handler=True, jobs=dict.fromkeys(Status, 0))
    assert store.claim(second) is not None
    store.send(Fail(second, 1, "no", seconds=1.5))
    assert store.ask(ListTypes())[0].mean_running_seconds == pytest.approx(0.625)


def test_what_waits_for_a_handler_is_a_type_too(tmp_path: Any) -> None:
    path = str(tmp_path / "jobs.db")
    store = Store(path)
    store.ask(Submit("gone"))
    store.database.close()
    (gone,) = Store(path, handlers=Handlers({})).ask(ListTypes())
    assert (gone.type, gone.has_handler, gone.jobs[Status.PENDING]) == ("gone", False, 1)


# However many types there are.


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.store.census.MOST_TYPES", 3)


def names(store: Store) -> list[tuple[str | None, int]]:
    return [(shown.type, sum(shown.jobs.values())) for shown in store.ask(ListTypes())]


@pytest.mark.usefixtures("few")
def test_types_beyond_the_most_are_counted_together_until_none_of_their_jobs_is_left() -> None:
    store = Store(keep_finished=1)
    jobs = [store.ask(Submit(name)).id for name in "abcdec"]
    assert names(store) == [("a", 1), ("b", 1), ("c", 2), (None, 2)]
    for job_id in jobs:
        store.ask(Cancel(job_id))
    store.ask(Submit("f"))
    assert names(store) == [("c", 1), ("f", 1)]


@pytest.mark.usefixtures("few")
def test_a_job_is_taken_away_where_it_was_counted_even_if_there_is_room_since() -> None:
    store = Store(keep_finished=1)
    jobs = {name: store.ask(Submit(name)).id for name in "abcd"}
    for name in "ab":
        store.ask(Cancel(jobs[name]))
    assert names(store) == [("b", 1), ("c", 1), (None, 1)]
    second = store.ask(Submit("d")).id
    assert names(store)[-1] == (None, 2)
    store.ask(Cancel(second))
    store.ask(Cancel(jobs["d"]))
    assert names(store) == [("c", 1), (None, 1)]


def test_a_million_types_take_no_more_memory_than_the_most() -> None:
    census = Census(((f"{number:07}", "completed", 1) for number in range(1_000_000)), simulated(0))
    assert len(census._tallies) == 10_000
    page = census.page(ListTypes(after="0009998"), lambda _: None, NOW)
    assert [shown.type for shown in page] == ["0009999", None]
    assert page[-1].jobs[Status.COMPLETED] == 990_000
    census.note(Changes(deleted=[("0999999", Status.COMPLETED)]))
    assert census.page(ListTypes(after="0009998"), lambda _: None, NOW)[-1].jobs[Status.COMPLETED] == 989_999


def test_a_page_looks_for_the_oldest_job_of_few_types() -> None:
    census = Census(((f"{number:04}", "pending", 1) for number in range(5000)), simulated(0))
    asked: list[str] = []
    page = census.page(ListTypes(limit=2, after="0100"), lambda name: asked.append(name) or NOW, NOW)  # type: ignore[func-returns-value]
    assert [shown.type for shown in page] == asked == ["0101", "0102"]


def test_a_start_counts_in_one_pass_over_an_index_that_holds_all_it_needs() -> None:
    database = Database(":memory:")
    plan = database._connection.execute(f"EXPLAIN QUERY PLAN {COUNT_TYPES}").fetchall()
    assert [row[3] for row in plan] == ["SCAN jobs USING COVERING INDEX jobs_by_type"]
    database.close()


# Over HTTP.


@pytest.fixture
def client() -> Iterator[falcon.testing.TestClient]:
    with start(Settings(simulated_seconds=600), None) as system:
        jobs: list[Job] = [system.store.ask(Submit(name)) for name in ("a/b", "email", "report")]
        assert len(jobs) == 3
        yield falcon.testing.TestClient(create_app(system))
        system.interrupts.begin_grace(0)


def test_types_are_listed_page_by_page(client: falcon.testing.TestClient) -> None:
    first = client.simulate_get("/types", params={"limit": 2})
    assert [shown["type"] for shown in first.json] == ["a/b", "email"]
    assert first.headers["link"] == "</types?limit=2&after=email>; rel=next"
    rest = client.simulate_get("/types?limit=2&after=email")
    assert [shown["type"] for shown in rest.json] == ["report"]
    assert "link" not in rest.headers
    assert set(rest.json[0]["jobs"]) == {*Status}


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x"])
def test_a_wrong_page_of_types_is_refused_with_what_is_allowed(
    client: falcon.testing.TestClient, query: str
) -> None:
    answer = client.simulate_get(f"/types?{query}")
    assert answer.status_code == 400
    assert "`limit` (1 to 1000)" in answer.json["detail"]
