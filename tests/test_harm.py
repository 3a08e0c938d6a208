"""An error harms the message that caused it and no other, and no outcome is lost."""

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pykka
import pytest

from actors import Await, GoferError, Settings, Submit, start
from actors.errors import StorageFailed
from actors.messages import (
    Begin,
    Cancel,
    Complete,
    CutOff,
    Fail,
    Get,
    ListJobs,
    Message,
    Ping,
    Progress,
    RecoverCrashed,
    Release,
    Retry,
)
from actors.messaging.reply import Reply
from actors.store.backlog import Backlog
from actors.store.database import Database
from actors.store.ledger import Ledger
from actors.store.reservations import Reservations
from actors.store.waiting import MOST_TRIES, SWEEP
from tests.calling import EMAIL, Store, assert_totals, failure, is_answered

#: Seconds after which a test gives up; nothing waits for so long unless it is broken.
LIMIT = 20.0

ERRORS: list[BaseException] = [
    MemoryError(),
    failure(sqlite3.SQLITE_NOMEM),
    failure(sqlite3.SQLITE_CONSTRAINT),
    failure(sqlite3.SQLITE_BUSY),
    ValueError("a row that cannot be read"),
    KeyError("unknown status"),
    SystemExit(3),
]

each_error = pytest.mark.parametrize("error", ERRORS, ids=lambda error: repr(error)[:40])


class Broken:
    """A store in which each step of one job's life can be made to fail."""

    def __init__(self) -> None:
        self.store = Store(keep_finished=0)
        self.pending, self.running, self.failed = (self.store.ask(EMAIL).id for _ in range(3))
        self.store.claim(self.running)
        self.store.claim(self.failed)
        self.store.ask(Fail(self.failed, 1, "broken"))

    def message(self, name: str) -> Message:
        return {
            "submit": EMAIL,
            "begin": Begin(self.pending, 1),
            "complete": Complete(self.running, 1, 5),
            "fail": Fail(self.running, 1, "broken"),
            "release": Release(self.running, 1),
            "cut off": CutOff(self.running, 1, "lost"),
            "cancel": Cancel(self.pending),
            "cancel running": Cancel(self.running),
            "retry": Retry(self.failed),
            "get": Get(self.pending),
            "list": ListJobs(),
            "await": Await(self.pending),
            "progress": Progress(self.running, 0.5),
            "recover": RecoverCrashed(),
        }[name]


NAMES = [
    "submit", "begin", "complete", "fail", "release", "cut off", "cancel", "cancel running", "retry", "get",
    "list", "await", "progress", "recover",
]  # fmt: skip


def failing_handle(message: Message, error: BaseException, times: float) -> Callable[..., Any]:
    """Let the ledger fail at this very message, so many times, after it has done what it says."""
    method = Ledger.handle

    def handle(ledger: Ledger, given: Message) -> Any:
        nonlocal times
        answer = method(ledger, given)
        if given is message and times > 0:
            times -= 1
            raise error
        return answer

    return handle


@each_error
@pytest.mark.parametrize("name", NAMES)
def test_a_message_that_fails_harms_no_other_in_its_batch(
    monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException
) -> None:
    broken = Broken()
    store = broken.store
    message = broken.message(name)
    monkeypatch.setattr(Ledger, "handle", failing_handle(message, error, times=1))
    store.more_is_waiting(True)
    before = store.send(Submit("before"))
    store.send(message)
    after = store.send(Submit("after"))
    asked = store.send(Get(broken.pending))
    store.more_is_waiting(False)
    store.ask(Ping())
    assert [before.get(timeout=0).status, after.get(timeout=0).status] == ["pending", "pending"]
    assert asked.get(timeout=0).id == broken.pending
    assert {job.type for job in store.ask(ListJobs())} >= {"before", "after"}
    assert_totals(store.database)


@each_error
@pytest.mark.parametrize("name", ["complete", "fail", "release", "cut off"])
def test_an_outcome_that_fails_for_a_while_is_stored_in_the_end(
    monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException
) -> None:
    broken = Broken()
    message = broken.message(name)
    monkeypatch.setattr(Ledger, "handle", failing_handle(message, error, times=2))
    broken.store.send(message)
    assert broken.store.ask(Get(broken.running)).status == "processing"
    for _ in range(2):
        broken.store.resume()
    assert (
        broken.store.ask(Get(broken.running)).status
        == {
            "complete": "completed",
            "fail": "failed",
            "release": "pending",
            "cut off": "pending",
        }[name]
    )


@each_error
@pytest.mark.parametrize("name", ["complete", "release", "cut off"])
def test_an_outcome_that_always_fails_becomes_a_failure_that_says_why(
    monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException
) -> None:
    broken = Broken()
    message = broken.message(name)
    monkeypatch.setattr(Ledger, "handle", failing_handle(message, error, times=float("inf")))
    broken.store.send(message)
    for _ in range(MOST_TRIES + 1):
        broken.store.resume()
    job = broken.store.ask(Get(broken.running))
    assert job.status == "failed"
    assert "the outcome could not be stored" in job.last_error


@pytest.mark.parametrize("name", ["fail"])
def test_what_can_neither_be_stored_nor_be_given_up_ends_the_store_which_answers_everybody(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    broken = Broken()
    message = broken.message(name)
    monkeypatch.setattr(Ledger, "handle", failing_handle(message, ValueError("a bug"), times=float("inf")))
    reply = broken.store.send(message)
    waiting = broken.store.send(Await(broken.pending))
    for _ in range(MOST_TRIES + 1):
        broken.store.resume()
    for given in (reply, waiting):
        assert is_answered(given)
    with pytest.raises(StorageFailed):
        broken.store.ask(EMAIL)


@each_error
@pytest.mark.parametrize("times", [1, float("inf")])
def test_a_beginning_that_fails_is_tried_again_or_left_to_the_outcome(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, times: float
) -> None:
    broken = Broken()
    store = broken.store
    assert store.take(broken.pending) is not None
    message = broken.message("begin")
    monkeypatch.setattr(Ledger, "handle", failing_handle(message, error, times=times))
    store.send(message)
    assert store.ask(Get(broken.pending)).status == "pending"
    for _ in range(MOST_TRIES + 1):
        store.resume()
    assert store.ask(Get(broken.pending)).status == ("processing" if times == 1 else "pending")
    store.send(Complete(broken.pending, 1, 5))
    assert store.ask(Get(broken.pending)).result == 5
    assert_totals(store.database)


@each_error
def test_a_reservation_that_fails_harms_no_message_and_is_made_later(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    if isinstance(error, SystemExit):
        pytest.skip("no code of a handler's runs there")
    store = Store()
    reserve, errors = Reservations.reserve, [error, error]

    def failing(reservations: Reservations, backlog: Backlog) -> None:
        reserve(reservations, backlog)
        if errors:
            raise errors.pop()

    monkeypatch.setattr(Reservations, "reserve", failing)
    job = store.ask(EMAIL)
    assert job.status == "pending"
    assert store.delivered() == []
    store.resume()
    assert store.delivered() == [job.id]
    assert_totals(store.database)


@pytest.mark.parametrize(
    "error", [MemoryError(), failure(sqlite3.SQLITE_NOMEM), failure(sqlite3.SQLITE_BUSY)]
)
def test_a_commit_that_fails_once_costs_nobody_anything(error: Exception) -> None:
    store = Store()
    errors = [error]
    commit = store.database.commit

    def failing() -> bool:
        if errors:
            raise errors.pop()
        return commit()

    store.database.commit = failing  # type: ignore[method-assign]
    store.more_is_waiting(True)
    replies = [store.send(EMAIL) for _ in range(3)]
    store.more_is_waiting(False)
    store.ask(Ping())
    jobs = [reply.get(timeout=0) for reply in replies]
    assert [job.status for job in jobs] == ["pending"] * 3
    assert store.delivered() == [job.id for job in jobs]


def test_a_rollback_that_fails_answers_everybody_and_ends_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    waiting = store.send(Await(job_id))
    store.fail_writes = sqlite3.SQLITE_CONSTRAINT

    def fail(_database: Database) -> None:
        raise MemoryError

    monkeypatch.setattr(Database, "rollback", fail)
    for reply in (store.send(EMAIL), waiting):
        with pytest.raises(StorageFailed, match="whether this was stored is unknown"):
            reply.get(timeout=0)


def test_a_row_that_cannot_be_read_fails_only_who_asks_for_it() -> None:
    store = Store(workers=1)
    store.ask(EMAIL)
    bad, good = store.ask(EMAIL).id, store.ask(EMAIL).id
    store.database.rollback()  # Or what was submitted is still in mind.
    store.database._connection.execute("UPDATE jobs SET created_at = ? WHERE id = ?", (10**18, int(bad, 16)))
    store.more_is_waiting(True)
    polls = [store.send(Get(bad)) for _ in range(4)]
    submits = [store.send(EMAIL) for _ in range(4)]
    shown = store.send(Get(good))
    store.more_is_waiting(False)
    store.ask(Ping())
    assert {reply.get(timeout=0).status for reply in [*submits, shown]} == {"pending"}
    for poll in polls:
        with pytest.raises(StorageFailed):
            poll.get(timeout=0)


# Awaits.


def test_an_await_is_answered_from_what_was_there_although_retention_has_deleted_the_job() -> None:
    store = Store(keep_finished=1)
    ids = [store.ask(EMAIL).id for _ in range(2)]
    waits = [store.send(Await(job_id)) for job_id in ids]
    for job_id in ids:
        store.claim(job_id)
    store.more_is_waiting(True)
    for number, job_id in enumerate(ids):
        store.send(Complete(job_id, 1, number))
    store.more_is_waiting(False)
    store.ask(Ping())
    assert [wait.get(timeout=0).result for wait in waits] == [0, 1]
    assert len(store.ask(ListJobs())) == 1


def test_two_jobs_that_finish_together_with_one_kept_stop_nothing() -> None:
    with start(Settings(keep_finished=1, workers=2), {"echo": lambda payload: payload}) as system:
        for _ in range(50):
            ids = [system.store.ask(Submit("echo", number)).id for number in range(2)]
            for number, job_id in enumerate(ids):
                try:
                    job = system.store.ask(Await(job_id), block=True, timeout=LIMIT)
                except GoferError:
                    continue  # It was deleted before it was asked for.
                assert job.result == number


def test_an_await_hears_of_a_failure_although_a_retry_follows_in_the_same_commit() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    wait = store.send(Await(job_id))
    store.claim(job_id)
    store.more_is_waiting(True)
    store.send(Fail(job_id, 1, "broken"))
    store.send(Retry(job_id))
    store.more_is_waiting(False)
    store.ask(Ping())
    assert wait.get(timeout=0).status == "failed"
    assert store.ask(Get(job_id)).status == "pending"


def test_awaits_that_were_given_up_are_forgotten_soon_even_if_nothing_else_happens() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    kept = store.send(Await(job_id))
    for _ in range(100):
        store.send(Await(job_id)).give_up("no longer interested")
    store.let_time_pass(SWEEP)
    assert len(store.actor._awaits) == 1
    store.send(Await(job_id)).give_up("no longer interested")
    store.let_time_pass(SWEEP)
    assert len(store.actor._awaits) == 1
    store.claim(job_id)
    store.ask(Complete(job_id, 1, "done"))
    assert kept.get(timeout=0).result == "done"
    assert len(store.actor._awaits) == 0
    store.let_time_pass(SWEEP)
    assert store.delayed.take() is None
    store.let_time_pass(SWEEP)
    assert store.delayed.take() is None


def test_what_an_await_keeps_is_not_the_job_which_may_be_large() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.send(Await(job_id))
    (entry,) = store.actor._awaits.take(job_id)
    assert entry.answer is None


# Cancels.


def test_a_cancel_that_is_rolled_back_interrupts_nothing() -> None:
    store = Store()
    job_id = store.ask(Submit("email", max_retries=1)).id
    store.claim(job_id)
    store.fail_writes = sqlite3.SQLITE_FULL
    with pytest.raises(StorageFailed, match="nothing was stored"):
        store.ask(Cancel(job_id))
    assert not store.interrupts.is_cancelled(job_id)
    store.fail_writes = None
    store.ask(Fail(job_id, 1, "broken"))
    assert store.ask(Get(job_id)).status == "pending"


def test_a_cancel_and_a_failure_in_one_commit_cancel_the_job() -> None:
    store = Store()
    job_id = store.ask(Submit("email", max_retries=1)).id
    store.claim(job_id)
    store.more_is_waiting(True)
    store.send(Cancel(job_id))
    store.send(Fail(job_id, 1, "broken"))
    store.more_is_waiting(False)
    store.ask(Ping())
    assert store.ask(Get(job_id)).status == "cancelled"
    store.ask(Retry(job_id))
    assert not store.interrupts.is_cancelled(job_id)


# The end, and the start.


def test_an_error_at_the_end_leaves_no_asker_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []
    store = Store(ended=lambda *, is_broken: ended.append(is_broken))
    waiting = store.send(Await(store.ask(EMAIL).id))
    monkeypatch.setattr(Ledger, "handle", lambda *_: 1 / 0)
    monkeypatch.setattr(Ledger, "commit", lambda *_: 1 / 0)
    store.actor.on_stop()
    with pytest.raises(StorageFailed):
        waiting.get(timeout=0)
    assert len(ended) == 1


@pytest.fixture
def threads() -> Iterator[set[threading.Thread]]:
    before = set(threading.enumerate())
    yield before
    assert set(threading.enumerate()) <= before


@each_error
@pytest.mark.parametrize("method", ["_read", "last_id", "interrupted"])
def test_a_start_that_cannot_read_the_database_is_refused_and_leaves_nothing(
    tmp_path: Path,
    threads: set[threading.Thread],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    error: BaseException,
) -> None:
    assert threads
    if isinstance(error, SystemExit):
        pytest.skip("what a start is asked to end by, ends it")
    settings = Settings(database=str(tmp_path / "jobs.db"), simulated_seconds=1)

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(Database, method, fail)
        with pytest.raises(StorageFailed):
            start(settings)
    with start(settings) as system:
        assert system.store.ask(EMAIL).status == "pending"
    assert pykka.ActorRegistry.get_all() == []


def test_what_was_not_stored_at_a_stop_on_a_full_disk_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    store = Store()
    job_id = store.ask(EMAIL).id
    store.claim(job_id)
    store.fail_writes = sqlite3.SQLITE_FULL
    store.send(Complete(job_id, 1, None))
    store.actor.on_stop()
    assert "its job will run again" in caplog.text


# Retention.


def test_what_has_just_finished_is_kept_although_the_clock_was_set_back() -> None:
    store = Store(keep_finished=5)
    old = [store.ask(EMAIL).id for _ in range(5)]
    for job_id in old:
        store.claim(job_id)
        store.ask(Complete(job_id, 1, None))
    store.now -= timedelta(hours=1)
    new = [store.ask(EMAIL).id for _ in range(5)]
    for job_id in new:
        store.claim(job_id)
        store.ask(Complete(job_id, 1, None))
        assert store.ask(Get(job_id)).status == "completed"
    assert [job.id for job in store.ask(ListJobs())] == new


def test_a_reply_raises_each_time_an_error_of_its_own() -> None:
    reply: Reply[None] = Reply()
    reply.settle(None, StorageFailed("full"))
    for _ in range(100):
        with pytest.raises(StorageFailed, match="full") as raised:
            reply.get()
    depth, step = 0, raised.value.__traceback__
    while step is not None:
        depth, step = depth + 1, step.tb_next
    assert depth < 10
