"""The line of pending jobs: nothing in it is lost, nor begun too soon, whatever becomes of the rest."""

import heapq
import sqlite3
from datetime import timedelta
from typing import Any

import pytest

from actors.errors import IllegalMove
from actors.messages import Begin, Cancel, Cancelled, Complete, Due, Fail, Get, Ping, Release, Run, Submit
from actors.store import backlog
from actors.store.backlog import Backlog
from tests.calling import EMAIL, Store

LATER = Submit("email", delay=10)


def restart(store: Store) -> None:
    """Know nothing but what is in the file, as a process that has not recovered yet."""
    store.forget()
    store.delivered()
    store.taken.clear()
    store.delayed.withdraw(lambda message: isinstance(message, Due))
    store.actor._backlog = Backlog(store.database, store.delayed, store.clock.steady)


def test_no_job_is_sent_before_those_of_the_process_before_are_recovered() -> None:
    store = Store()
    reserved = store.ask(EMAIL).id
    restart(store)
    later = store.ask(EMAIL).id
    assert not store.delivered()
    store.recover()
    assert store.claim(reserved).attempts == 2
    assert store.claim(later).attempts == 1


def test_a_cancel_before_a_recovery_counts_the_attempt_that_may_have_begun() -> None:
    store = Store()
    reserved = store.ask(EMAIL).id
    store.forget()
    store.fail_writes = sqlite3.SQLITE_FULL
    store.recover()
    store.fail_writes = None
    cancelled = store.ask(Cancel(reserved))
    assert (cancelled.status, cancelled.attempts) == ("cancelled", 1)
    store.resume()
    assert store.ask(Get(reserved)).attempts == 1


def test_a_recovery_in_the_commit_of_such_a_cancel_counts_nothing_twice() -> None:
    store = Store()
    reserved, cancelled = store.ask(EMAIL).id, store.ask(EMAIL).id
    store.forget()
    store.fail_writes = sqlite3.SQLITE_FULL
    store.recover()
    store.fail_writes = None
    store.more_is_waiting(True)
    store.send(Cancel(cancelled))
    store.resume()
    store.more_is_waiting(False)
    store.ask(Ping())
    assert store.ask(Get(reserved)).attempts == 1


def test_a_job_that_must_run_alone_waits_after_a_failure_as_any_other() -> None:
    store = Store(workers=2)
    job_id = store.ask(Submit("email", max_retries=1)).id
    for attempt in range(1, 4):
        other = store.ask(Submit("email")).id
        assert store.claim(job_id).attempts == attempt
        assert store.claim(other)
        store.crash()
        store.ask(Cancel(other))
    job = store.take(job_id)
    store.more_is_waiting(True)
    store.send(Begin(job_id, job.attempts))
    store.send(Fail(job_id, job.attempts, "too early"))
    store.more_is_waiting(False)
    store.ask(Ping())
    assert not store.delivered()
    store.now += timedelta(minutes=1)
    assert store.delivered() == [job_id]


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in {"PAGE": 2, "AGAIN": 1, "MOST": 6}.items():
        monkeypatch.setattr(backlog, name, size)


@pytest.mark.usefixtures("small_pages")
def test_the_next_page_is_read_when_all_that_was_left_of_one_is_cancelled() -> None:
    store = Store(workers=1)
    ids = [store.ask(EMAIL).id for _ in range(4)]
    restart(store)
    store.database.life.reserved.clear()
    store.recover()
    store.claim(ids[0])
    store.ask(Cancel(ids[1]))
    store.send(Complete(ids[0], 1, None))
    assert store.delivered() == [ids[2]]


@pytest.mark.usefixtures("small_pages")
def test_more_delayed_jobs_that_are_due_than_the_line_holds_are_read_a_part_at_a_time() -> None:
    store = Store(workers=1)
    ids = [store.ask(LATER).id for _ in range(10)]
    running = store.ask(EMAIL).id
    restart(store)
    store.database.life.reserved.clear()
    store.recover()
    store.claim(running)
    store.now += timedelta(seconds=11)
    handed_out = 0
    while handed_out < 100 and isinstance(due := store.delayed.take(), Due):
        store.send(due)
        handed_out += 1
    assert handed_out < len(ids)
    store.send(Complete(running, 1, None))
    for job_id in ids:
        assert store.delivered() == [job_id]
        store.claim(job_id)
        store.send(Complete(job_id, 1, None))


@pytest.mark.usefixtures("small_pages")
def test_a_page_read_just_when_the_clock_is_set_back_loses_no_job() -> None:
    store = Store()
    ids = [store.ask(Submit("email", delay=delay)).id for delay in (10, 20, 30, 40, 50)]
    restart(store)
    store.recover()
    store.now += timedelta(seconds=20)
    store.jumped = -timedelta(hours=1)
    store.more_is_waiting(True)
    store.send(EMAIL)  # Sees the clock in the commit for which the page is read.
    store.let_due()
    store.more_is_waiting(False)
    store.ask(Ping())
    found = [job_id for job_id in store.delivered() if job_id in ids]
    for _ in range(3):
        store.now += timedelta(seconds=10)
        found += store.delivered()
    assert found == ids


def test_a_delay_begins_with_its_submit_however_long_the_commit_has_been_open() -> None:
    store = Store()
    store.more_is_waiting(True)
    store.send(EMAIL)
    store.now += timedelta(seconds=5)
    reply = store.send(LATER)
    store.more_is_waiting(False)
    store.ask(Ping())
    assert reply.get(timeout=0).run_at == store.now + timedelta(seconds=10)


def taken(store: Store) -> Run:
    """Return what a Worker takes out of the channel next, after it has told that it begins."""
    run = store.channel.take()
    assert isinstance(run, Run)
    store.send(Begin(run.id, run.job.attempts, run=run.number))
    return run


@pytest.mark.parametrize("outcome", [Release, Cancelled])
def test_what_is_told_late_of_a_run_that_gave_way_does_not_end_the_next(outcome: Any) -> None:
    store = Store(workers=1)
    store.ask(EMAIL)
    first = taken(store)
    store.ask(Release(first.id, 1, run=first.number))
    second = taken(store)
    assert second.job == first.job
    with pytest.raises(IllegalMove, match="was begun again"):
        store.ask(outcome(first.id, 1, run=first.number))
    store.ask(Complete(second.id, 1, None, run=second.number))
    assert store.ask(Get(first.id)).status == "completed"


SHORT, LONG, APART = 0.010, 1.0, 0.012
#: Jobs in all, and which of them is the long one.
JOBS, LONG_ONE = 300, 100


def test_a_long_job_among_short_ones_of_its_type_delays_none_of_them_when_another_worker_is_free() -> None:
    store, idle, waits = Store(workers=2), 2, list[float]()
    events: list[tuple[float, int, Run | None]] = [(APART * number, number, None) for number in range(JOBS)]
    begin, submitted, began = store.seconds(), dict[str, float](), dict[str, float]()
    while events:
        at, number, run = heapq.heappop(events)
        store.now += timedelta(seconds=begin + at - store.seconds())
        if run is None:
            submitted[store.ask(Submit("email", number)).id] = at
        else:
            idle += 1
            store.send(Complete(run.id, 1, None, seconds=at - began[run.id], run=run.number))
        while idle and store.channel.holds(lambda _: True):
            idle, run = idle - 1, taken(store)
            began[run.id] = at
            waits.append(at - submitted[run.id])
            seconds = LONG if run.job.payload == LONG_ONE else SHORT
            heapq.heappush(events, (at + seconds, JOBS + len(waits), run))
    assert len(waits) == JOBS
    assert max(waits) <= 0.020
