"""The JobStore, built but not started: messages are handled by calling it, and time is a variable."""

import logging
import sqlite3
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import Mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import UNSET

from actors.errors import (
    CapacityReached,
    Draining,
    GoferError,
    IllegalMove,
    InvalidJob,
    JobNotFound,
    OutcomeInDoubt,
    StorageFailed,
)
from actors.handlers import Handlers, handler, simulated
from actors.lifecycle import Job, Status
from actors.messages import (
    Await,
    Begin,
    Cancel,
    Cancelled,
    Complete,
    CutOff,
    Drain,
    Fail,
    Get,
    ListJobs,
    Ping,
    Progress,
    Release,
    Retry,
    Run,
    Submit,
)
from actors.store.backlog import AGAIN, PAGE
from actors.store.batch import BATCH
from actors.work.worker import Worker
from tests.calling import EMAIL, Store, assert_totals, failure, is_answered

NUMBERS, ATTEMPTS = st.integers(0, 50), st.integers(1, 4)


def test_a_submitted_job_is_stored_pending_and_handed_to_the_channel() -> None:
    store = Store()
    job = store.ask(EMAIL)
    assert (job.type, job.status, job.attempts, job.created_at) == ("email", "pending", 0, store.now)
    assert store.delivered() == [job.id]
    assert store.ask(Get(job.id)).payload == {"to": "user@example.com"}


def test_a_job_goes_from_pending_over_processing_to_completed() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    claimed = store.claim(job_id)
    assert (claimed.status, claimed.attempts, claimed.raw_payload) == ("processing", 1, EMAIL.payload)
    store.now += timedelta(seconds=1)
    store.ask(Complete(job_id, 1, {"sent": True}))
    job = store.ask(Get(job_id))
    assert (job.status, job.result) == ("completed", {"sent": True})
    assert job.finished_at - job.started_at == timedelta(seconds=1)


def test_a_job_is_not_claimed_before_it_is_due_and_handed_out_again() -> None:
    store = Store()
    job_id = store.ask(Submit("email", max_retries=1, delay=60)).id
    store.ask(Cancel(job_id))
    store.ask(Retry(job_id))
    store.claim(job_id)
    store.now += timedelta(seconds=59.5)
    store.ask(
        Fail(job_id, 1, "broken")
    )  # Due in a second; by the wait from before the cancel in half of one.
    store.now += timedelta(seconds=0.5)
    assert store.delivered() == []
    assert store.claim(job_id) is None
    store.now += timedelta(seconds=0.5)
    assert store.claim(job_id).attempts == 2


def test_a_job_is_handed_out_once_however_often_it_is_claimed() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    assert store.claim(job_id) is not None
    assert store.claim(job_id) is None


def test_an_outcome_counts_once() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.claim(job_id)
    store.ask(Complete(job_id, 1, "first"))
    with pytest.raises(IllegalMove):
        store.ask(Complete(job_id, 1, "second"))
    with pytest.raises(IllegalMove):
        store.ask(Fail(job_id, 1, "late"))
    assert store.ask(Get(job_id)).result == "first"


def test_a_released_job_is_handed_to_the_channel_again() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.delivered()
    store.claim(job_id)
    store.ask(Release(job_id, 1))
    assert store.delivered() == [job_id]
    assert store.claim(job_id).attempts == 1


def test_a_submit_beyond_the_capacity_is_refused_and_nowhere() -> None:
    store = Store(capacity=2)
    first = store.ask(EMAIL)
    store.ask(EMAIL)
    with pytest.raises(CapacityReached, match="2 jobs are pending"):
        store.ask(EMAIL)
    assert len(store.ask(ListJobs())) == 2
    store.claim(first.id)
    assert store.ask(EMAIL).status == "pending"


@pytest.mark.parametrize("job_type", ["", "x" * 256, "new\nline", 5])
def test_a_job_of_no_proper_type_cannot_even_be_described(job_type: Any) -> None:
    with pytest.raises(InvalidJob, match="`type` must be a string of 1 to 255 printable characters"):
        Submit(job_type)


def test_a_payload_that_is_not_json_cannot_even_be_described() -> None:
    with pytest.raises(InvalidJob, match="`payload` is not JSON"):
        Submit("email", {"to": object()})


@pytest.mark.parametrize("job_id", ["", "nope", "0" * 16, "f" * 16, "0x" + "1" * 14, "\u0661" * 16])
def test_an_unknown_id_is_not_found_whatever_it_looks_like(job_id: str) -> None:
    store = Store()
    for message in (Get(job_id), Await(job_id), Complete(job_id, 1, None)):
        with pytest.raises(JobNotFound):
            store.ask(message)
    assert store.claim(job_id) is None


@pytest.mark.parametrize("order", ["oldest", "newest"])
@pytest.mark.parametrize("after", ["", "nope", "8" + "0" * 15, "f" * 16, "A" * 16, "0" * 15 + "1\n"])
def test_a_list_after_what_is_not_an_id_is_refused(after: str, order: Any) -> None:
    store = Store()
    store.ask(EMAIL)
    with pytest.raises(JobNotFound, match=r"`after` is .*, which is not the id of a job"):
        store.ask(ListJobs(after=after, order=order))


def test_a_list_goes_on_after_a_job_that_was_deleted_since() -> None:
    store = Store(keep_finished=1)
    first, second, third = [store.ask(EMAIL).id for _ in range(3)]
    for job_id in (first, second):
        store.ask(Cancel(job_id))
    with pytest.raises(JobNotFound):
        store.ask(Get(first))
    assert [job.id for job in store.ask(ListJobs(after=first))] == [second, third]
    assert store.ask(ListJobs(after=first, order="newest")) == []


def test_a_list_is_in_the_order_of_submission_and_can_be_walked() -> None:
    store = Store()
    ids = [store.ask(Submit("odd" if n % 2 else "even")).id for n in range(10)]
    assert [job.id for job in store.ask(ListJobs())] == ids
    assert [job.id for job in store.ask(ListJobs(limit=3, after=ids[3]))] == ids[4:7]
    assert [job.id for job in store.ask(ListJobs(limit=3, after=ids[3], order="newest"))] == ids[2::-1]
    assert [job.id for job in store.ask(ListJobs(type="odd"))] == ids[1::2]
    store.claim(ids[4])
    assert [job.id for job in store.ask(ListJobs(status=Status.PROCESSING))] == [ids[4]]
    assert [job.id for job in store.ask(ListJobs(status=Status.PENDING, type="even"))] == [
        ids[n] for n in (0, 2, 6, 8)
    ]


def test_progress_is_shown_while_the_job_runs_and_gone_when_it_is_finished() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.ask(Progress(job_id, 0.1))
    assert store.ask(Get(job_id)).progress is None
    store.claim(job_id)
    store.ask(Progress(job_id, 0.5))
    assert store.ask(Get(job_id)).progress == 0.5
    assert store.ask(ListJobs())[0].progress == 0.5
    store.ask(Complete(job_id, 1, None))
    store.ask(Progress(job_id, 0.9))
    assert store.ask(Get(job_id)).progress is None


def test_a_job_can_be_got_without_reading_its_payload_and_result() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.claim(job_id)
    store.ask(Progress(job_id, 0.5))
    running = store.ask(Get(job_id, is_whole=False))
    assert (running.status, running.progress, running.raw_payload) == ("processing", 0.5, UNSET)
    store.ask(Complete(job_id, 1, 42))
    done = store.ask(Get(job_id, is_whole=False))
    assert (done.status, done.raw_result) == ("completed", UNSET)
    assert store.ask(Get(job_id)).result == 42
    for unknown in ("0" * 16, "nonsense"):
        with pytest.raises(JobNotFound, match=f"there is no job {unknown}"):
            store.ask(Get(unknown, is_whole=False))


def test_an_await_is_answered_when_the_job_is_finished() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    early = store.send(Await(job_id))
    store.claim(job_id)
    assert not early._outcome
    store.ask(Complete(job_id, 1, 42))
    assert early.get(timeout=0).result == 42
    assert store.ask(Await(job_id)).result == 42


def test_a_drain_refuses_submits_and_claims_and_answers_who_waits() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    waiting = store.send(Await(job_id))
    store.drain()
    assert waiting.get(timeout=0).status == "pending"
    assert store.claim(job_id) is None
    with pytest.raises(Draining, match="stopping"):
        store.ask(EMAIL)


def test_an_await_that_comes_during_a_stop_is_answered_at_once() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.drain()
    assert store.ask(Await(job_id)).status == "pending"


def test_a_hand_over_leaves_who_waits_waiting_until_no_job_can_finish_here() -> None:
    store = Store()
    running, pending = (store.ask(EMAIL).id for _ in range(2))
    store.claim(running)
    early = store.send(Await(running))
    store.drain(admits=True)
    late = store.send(Await(pending))
    assert not is_answered(early)
    store.ask(Complete(running, 1, None))
    assert early.get(timeout=0).status == "completed"
    assert not is_answered(late)
    store.send(Drain())
    assert late.get(timeout=0).status == "pending"
    assert store.ask(Await(pending)).status == "pending"


def test_nothing_is_answered_or_delivered_before_the_commit() -> None:
    store = Store()
    store.more_is_waiting(True)
    replies = [store.send(EMAIL) for _ in range(3)]
    assert all(reply._outcome is None for reply in replies)
    assert store.delivered() == []
    store.more_is_waiting(False)
    last = store.ask(EMAIL)
    assert store.delivered() == [reply.get(timeout=0).id for reply in replies] + [last.id]


def test_a_full_batch_is_committed_although_more_is_waiting() -> None:
    store = Store()
    store.more_is_waiting(True)
    replies = [store.send(EMAIL) for _ in range(BATCH)]
    assert all(reply.get(timeout=0).status == "pending" for reply in replies)


def test_a_failed_commit_stores_nothing_says_so_and_leaves_the_store_working() -> None:
    store = Store(capacity=1000)
    kept = store.ask(EMAIL)
    free_disk = store.fill_disk()
    large = Submit("email", {"text": "x" * 100_000})
    store.more_is_waiting(True)
    replies = [store.send(large), store.send(EMAIL)]
    store.more_is_waiting(False)
    replies.append(store.send(EMAIL))
    for reply in replies:
        with pytest.raises(StorageFailed, match="nothing was stored"):
            reply.get(timeout=0)
    assert [job.id for job in store.ask(ListJobs())] == [kept.id]
    assert store.delivered() == [kept.id]
    free_disk()
    assert store.ask(large).status == "pending"
    assert store.ledger.counts[Status.PENDING] == 2


def test_an_outcome_that_could_not_be_stored_is_kept_and_stored_when_there_is_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    store = Store()
    job_id = store.ask(EMAIL).id
    store.claim(job_id)
    free_disk = store.fill_disk()
    store.send(Complete(job_id, 1, "x" * 100_000))
    assert store.ask(Get(job_id)).status == "processing"
    store.resume()
    assert store.ask(Get(job_id)).status == "processing"
    free_disk()
    store.resume()
    assert store.ask(Get(job_id)).result == "x" * 100_000
    assert caplog.text.count("nothing of this batch was stored") == 1
    assert caplog.text.count("there is disk space again") == 1


def test_a_beginning_waits_while_the_disk_is_full() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.fail_writes = sqlite3.SQLITE_FULL
    assert store.claim(job_id) is not None
    store.resume()
    assert store.ask(Get(job_id)).status == "pending"
    store.fail_writes = None
    store.resume()
    assert store.ask(Get(job_id)).status == "processing"


def test_an_outcome_tells_of_a_beginning_that_could_not_be_stored() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.fail_writes = sqlite3.SQLITE_FULL
    assert store.claim(job_id) is not None
    store.actor._kept.take_all()
    store.fail_writes = None
    store.send(Complete(job_id, 1, 7))
    assert store.ask(Get(job_id)).result == 7


def test_nothing_is_sent_to_the_workers_while_the_disk_is_full() -> None:
    store = Store(workers=1)
    first, second = store.ask(EMAIL).id, store.ask(EMAIL).id
    store.claim(first)
    store.fail_writes = sqlite3.SQLITE_FULL
    store.send(Complete(first, 1, None))
    store.resume()
    assert store.delivered() == []
    store.fail_writes = None
    store.resume()
    assert store.delivered() == [second]


def test_a_stop_on_a_full_disk_says_what_was_lost_and_closes(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[bool] = []
    store = Store(ended=lambda *, is_broken: ended.append(is_broken))
    job_id, _other = store.ask(EMAIL).id, store.ask(EMAIL).id
    store.claim(job_id)
    store.fail_writes = sqlite3.SQLITE_FULL
    store.send(Complete(job_id, 1, None))
    store.drain()
    store.actor.on_stop()
    assert "not stored before the end" in caplog.text
    assert ended == [False]


def test_what_a_drain_takes_back_on_a_full_disk_is_given_back_when_there_is_room() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.fail_writes = sqlite3.SQLITE_FULL
    store.drain()
    assert job_id in store.ledger._runs.reserved
    store.fail_writes = None
    store.resume()
    assert job_id not in store.ledger._runs.reserved


def test_a_start_on_a_full_disk_recovers_what_was_running_when_there_is_room() -> None:
    store = Store()
    running, waiting = store.ask(EMAIL).id, store.ask(EMAIL).id
    store.claim(running)
    store.delivered()
    store.forget()
    store.fail_writes = sqlite3.SQLITE_FULL
    assert store.recover() == 1
    store.fail_writes = None
    store.resume()
    assert store.claim(waiting).attempts == 2
    assert store.claim(running).attempts == 2
    assert store.ask(Get(waiting)).status == "processing"


def test_questions_are_answered_while_the_disk_is_full() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.fail_writes = sqlite3.SQLITE_FULL
    store.more_is_waiting(True)
    refused, cancel = store.send(EMAIL), store.send(Cancel(job_id))
    shown, listed, awaited = store.send(Get(job_id)), store.send(ListJobs()), store.send(Await(job_id))
    store.more_is_waiting(False)
    store.send(Progress(job_id, 0.5))
    for reply in (refused, cancel):
        with pytest.raises(StorageFailed):
            reply.get(timeout=0)
    assert shown.get(timeout=0).status == "pending"
    assert [job.id for job in listed.get(timeout=0)] == [job_id]
    assert not is_answered(awaited)


def test_a_broken_disk_stops_the_store_which_answers_everyone_and_stores_nothing_more() -> None:
    ended: list[bool] = []
    store = Store(ended=lambda *, is_broken: ended.append(is_broken))
    job_id, other_id = store.ask(EMAIL).id, store.ask(EMAIL).id
    store.claim(other_id)
    waiting = store.send(Await(job_id))
    store.fail_writes = sqlite3.SQLITE_IOERR_FSYNC
    with pytest.raises(OutcomeInDoubt, match="whether this was stored is unknown"):
        store.ask(EMAIL)
    store.fail_writes = None
    for late in (EMAIL, Get(job_id), Complete(other_id, 1, None)):
        with pytest.raises(StorageFailed, match="nothing was stored"):
            store.ask(late)
    with pytest.raises(StorageFailed):
        waiting.get(timeout=0)
    store.actor.on_stop()
    assert ended == [True]


@pytest.mark.parametrize("code", [sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR])
def test_a_recovery_on_a_broken_disk_is_refused(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    store = Store()
    store.claim(store.ask(EMAIL).id)
    store.forget()
    monkeypatch.setattr(store.database, "update", Mock(side_effect=failure(code)))
    with pytest.raises(StorageFailed, match=f"the database is broken; .*: error {code}"):
        store.recover()


def test_a_question_that_cannot_be_asked_fails_alone() -> None:
    store = Store()
    with pytest.raises(StorageFailed):
        store.ask(Get(7))  # type: ignore[arg-type]
    assert store.ask(EMAIL).status == "pending"


def test_an_outcome_that_comes_too_late_is_dropped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.actor.on_receive(Complete(job_id, 1, None))
    assert "outcome dropped" in caplog.text
    assert store.ask(Get(job_id)).status == "pending"


def test_a_beginning_that_was_rolled_back_is_told_again() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    job = store.take(job_id)
    store.more_is_waiting(True)
    store.send(Begin(job_id, 1))
    store.send(Progress(job_id, 0.5))
    store.actor._roll_back(failure(sqlite3.SQLITE_FULL))
    store.more_is_waiting(False)
    assert store.ask(Get(job_id)).status == "pending"
    store.resume()
    assert store.ask(Get(job_id)).attempts == job.attempts == 1


def test_a_message_that_it_does_not_know_is_refused() -> None:
    with pytest.raises(TypeError, match="JobStore does not understand a str message"):
        Store().ask("hello")


def test_only_so_many_finished_jobs_are_kept_and_the_oldest_go_first() -> None:
    store = Store(keep_finished=3)
    ids = [store.ask(EMAIL).id for _ in range(10)]
    for job_id in ids[:8]:
        store.claim(job_id)
        store.now += timedelta(seconds=1)
        store.ask(Complete(job_id, 1, None))
    assert [job.id for job in store.ask(ListJobs())] == ids[5:]
    assert store.ledger.counts == {
        "pending": 2,
        "delayed": 0,
        "processing": 0,
        "completed": 3,
        "failed": 0,
        "cancelled": 0,
    }


def test_a_job_that_is_retried_finishes_anew_and_is_kept_as_the_last_that_did() -> None:
    store = Store(keep_finished=2)
    first, second, third = [store.ask(EMAIL).id for _ in range(3)]
    store.ask(Cancel(first))
    store.ask(Cancel(second))
    store.ask(Retry(first))
    store.ask(Cancel(first))
    store.ask(Cancel(third))
    assert [job.id for job in store.ask(ListJobs())] == [first, third]


def test_what_finished_before_a_restart_is_deleted_before_what_finished_after_it(tmp_path: Path) -> None:
    path = str(tmp_path / "jobs.db")
    store = Store(path, keep_finished=2)
    first, second, third = [store.ask(EMAIL).id for _ in range(3)]
    store.ask(Cancel(third))
    store.ask(Cancel(first))
    store.database.close()
    store = Store(path, keep_finished=2)
    store.now -= timedelta(hours=1)
    store.ask(Cancel(second))
    assert [job.id for job in store.ask(ListJobs())] == [first, second]


def failing(store: Store, job_id: str, attempt: int) -> Job:
    """Let the attempt fail; return the job as it is then."""
    assert store.claim(job_id).attempts == attempt
    store.ask(Fail(job_id, attempt, "ValueError: broken"))
    job: Job = store.ask(Get(job_id))
    return job


def test_a_failed_attempt_is_followed_by_so_many_more_with_growing_waits() -> None:
    store = Store()
    job_id = store.ask(Submit("email", max_retries=2)).id
    assert store.delivered() == [job_id]
    for attempt, wait in ((1, 1), (2, 2)):
        job = failing(store, job_id, attempt)
        assert (job.status, job.last_error) == ("pending", "ValueError: broken")
        assert job.run_at == store.now + timedelta(seconds=wait)
        assert store.delivered() == []
        store.now += timedelta(seconds=wait)
        assert store.delivered() == [job_id]
    assert failing(store, job_id, 3).status == "failed"
    store.now += timedelta(days=1)
    assert store.delivered() == []


def test_the_number_of_retries_is_the_jobs_or_its_handlers_or_the_settings() -> None:
    often = handler(max_retries=7, backoff=10)(lambda _payload: None)
    store = Store(handlers=Handlers({"often": often, "plain": print}), max_retries=3)
    assert store.ask(Submit("often", max_retries=1)).max_retries == 1
    assert store.ask(Submit("plain")).max_retries == 3
    job = store.ask(Submit("often"))
    assert job.max_retries == 7
    assert failing(store, job.id, 1).run_at == store.now + timedelta(seconds=10)


def test_a_delayed_job_is_pending_and_delivered_when_it_is_due() -> None:
    store = Store()
    job = store.ask(Submit("email", delay=60))
    assert (job.status, job.run_at) == ("pending", store.now + timedelta(seconds=60))
    assert store.delivered() == []
    store.now += timedelta(seconds=60)
    assert store.delivered() == [job.id]


@pytest.mark.parametrize(
    "field", [{"max_retries": -1}, {"max_retries": 1001}, {"delay": -1}, {"delay": 1e10}]
)
def test_a_number_out_of_range_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob, match=f"`{next(iter(field))}` must be .*from 0 to"):
        Submit("email", **field)


def test_a_type_without_a_handler_is_refused_with_the_types_there_are() -> None:
    store = Store(handlers=Handlers({"email": print, "report": print}))
    with pytest.raises(InvalidJob, match="no handler for `type` 'emial'; there are: email, report"):
        store.ask(Submit("emial"))
    assert store.ask(ListJobs()) == []


def test_a_pending_job_is_cancelled_at_once() -> None:
    store = Store()
    job_id = store.ask(Submit("email", delay=60)).id
    assert store.ask(Cancel(job_id)).status == "cancelled"
    assert store.claim(job_id) is None
    with pytest.raises(IllegalMove, match="is cancelled; to cancel it, it must be pending or processing"):
        store.ask(Cancel(job_id))


def test_a_running_job_is_cancelled_when_its_worker_says_so() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.claim(job_id)
    assert store.ask(Cancel(job_id)).status == "processing"
    assert store.interrupts.is_cancelled(job_id)
    store.ask(Cancelled(job_id, 1))
    assert store.ask(Get(job_id)).status == "cancelled"
    assert not store.interrupts.is_cancelled(job_id)


def test_a_running_job_that_fails_or_is_given_back_after_a_cancel_is_cancelled() -> None:
    for message in (Fail, Release):
        store = Store()
        job_id = store.ask(Submit("email", max_retries=5)).id
        store.claim(job_id)
        store.ask(Cancel(job_id))
        store.ask(message(job_id, 1, *["broken"] * (message is Fail)))
        assert store.ask(Get(job_id)).status == "cancelled"


def test_a_running_job_that_ends_before_it_can_be_cancelled_is_completed() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.claim(job_id)
    store.ask(Cancel(job_id))
    store.ask(Complete(job_id, 1, "done"))
    assert store.ask(Get(job_id)).status == "completed"


def test_a_failed_or_cancelled_job_can_be_retried_and_no_other() -> None:
    store = Store()
    failed, cancelled, waiting = (store.ask(EMAIL).id for _ in range(3))
    failing(store, failed, 1)
    store.ask(Cancel(cancelled))
    store.delivered()
    for job_id in (failed, cancelled):
        assert store.ask(Retry(job_id)).status == "pending"
        assert store.delivered() == [job_id]
    with pytest.raises(IllegalMove, match="is pending; to retry it, it must be failed or cancelled"):
        store.ask(Retry(waiting))
    assert failing(store, failed, 2).status == "failed"


def test_a_retry_is_refused_when_the_capacity_is_reached() -> None:
    store = Store(capacity=1)
    job_id = store.ask(EMAIL).id
    store.ask(Cancel(job_id))
    store.ask(EMAIL)
    with pytest.raises(CapacityReached):
        store.ask(Retry(job_id))


def test_recovery_hands_out_what_an_earlier_process_left(tmp_path: Path) -> None:
    path = str(tmp_path / "jobs.db")
    before = Store(path)
    ids = [before.ask(EMAIL).id for _ in range(3)]
    before.claim(ids[0])
    before.claim(ids[1])
    before.ask(Complete(ids[1], 1, None))
    before.database.close()
    after = Store(path)
    assert after.recover() == 2
    assert after.delivered() == [ids[0], ids[2]]
    assert after.claim(ids[0]).attempts == 2
    assert after.ask(EMAIL).id > max(ids)


def test_a_job_that_ran_at_a_crash_fails_where_jobs_run_at_most_once() -> None:
    store = Store(on_crash="fail")
    job_id = store.ask(Submit("email", max_retries=9)).id
    store.claim(job_id)
    store.crash()
    assert store.ask(Get(job_id)).status == "failed"


def test_a_running_job_that_was_to_be_cancelled_is_not_run_again_after_a_crash() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.claim(job_id)
    store.ask(Cancel(job_id))
    store.crash()
    assert store.ask(Get(job_id)).status == "cancelled"


def test_a_long_backlog_is_handed_out_in_order_and_a_part_at_a_time() -> None:
    store = Store(capacity=10_000, workers=1)
    store.more_is_waiting(True)
    ids = [store.send(EMAIL) for _ in range(3 * PAGE)]
    store.more_is_waiting(False)
    store.ask(Ping())
    backlog = [reply.get(timeout=0).id for reply in ids]
    store.forget()
    store.database.life.reserved.clear()
    store.recover()
    line = store.actor._backlog._line
    assert len(line) == PAGE - 1
    backlog.append(store.ask(EMAIL).id)
    store.ask(Cancel(backlog[10]))
    store.ask(Retry(backlog[10]))
    taken, most = [], 0
    while delivered := store.delivered():
        most = max(most, len(line))
        (job_id,) = delivered
        taken.append(job_id)
        store.claim(job_id)
        store.ask(Complete(job_id, 1, None))
    assert taken == backlog
    assert most < PAGE + AGAIN


class Model(NamedTuple):
    """What the table of moves makes of a job."""

    status: Status
    attempts: int = 0
    max_retries: int = 0
    is_unwanted: bool = False
    crashes: int = 0
    interruptions: int = 0
    #: Seconds of the store's clock before which it may not be claimed.
    due: float = 0


class Histories(RuleBasedStateMachine):
    """Whatever happens in whatever order, the store agrees with a small model of the moves."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(capacity=5, capacity_delayed=5, keep_finished=0)
        self.model: dict[str, Model] = {}

    def does(self, message: Any) -> bool:
        try:
            self.store.ask(message)
        except GoferError:
            return False
        return True

    def pick(self, number: int) -> tuple[str, Model]:
        job_id = sorted(self.model)[number % len(self.model)] if self.model else "0" * 16
        return job_id, self.model.get(job_id, Model(Status.COMPLETED))

    def is_full(self, *, delayed: bool = False) -> bool:
        pending = [job for job in self.model.values() if job.status is Status.PENDING]
        return sum((job.due > 0) is delayed for job in pending) >= 5

    def end(self, number: int, attempt: int, message: type[Any], *content: str) -> None:
        """End an attempt, perhaps one that is not running."""
        job_id, job = self.pick(number)
        is_legal = job.status is Status.PROCESSING and job.attempts == attempt
        assert self.does(message(job_id, attempt, *content)) is is_legal
        if is_legal:
            crashes = job.crashes if message in (Release, CutOff) else 0
            self.model[job_id] = self.ended(job, message)._replace(is_unwanted=False, crashes=crashes)

    def ended(self, job: Model, message: type[Any]) -> Model:
        if message is Complete:
            return job._replace(status=Status.COMPLETED)
        job = job._replace(interruptions=job.interruptions + (message is CutOff))
        if job.is_unwanted or message is Cancelled:
            return job._replace(status=Status.CANCELLED)
        if message is Release:
            return job._replace(status=Status.PENDING, attempts=job.attempts - 1)
        if message is CutOff:
            due = self.store.seconds() + 2 ** (job.interruptions - 1)
            return job._replace(status=Status.PENDING, due=due)
        failures = job.attempts - job.interruptions
        if failures > job.max_retries:
            return job._replace(status=Status.FAILED)
        return job._replace(status=Status.PENDING, due=self.store.seconds() + 2 ** (failures - 1))

    @rule(retries=st.integers(0, 2), delay=st.sampled_from([0.0, 5.0]))
    def submit(self, retries: int, delay: float) -> None:
        is_full = self.is_full(delayed=delay > 0)
        try:
            job: Job = self.store.ask(Submit("email", max_retries=retries, delay=delay))
        except CapacityReached:
            assert is_full
        else:
            assert not is_full
            due = self.store.seconds() + delay if delay else 0
            self.model[job.id] = Model(Status.PENDING, max_retries=retries, due=due)

    @rule(seconds=st.integers(1, 10))
    def time_passes(self, seconds: int) -> None:
        self.store.now += timedelta(seconds=seconds)

    @rule(number=NUMBERS)
    def claim(self, number: int) -> None:
        job_id, job = self.pick(number)
        is_legal = job.status is Status.PENDING and job.due <= self.store.seconds()
        assert (self.store.claim(job_id) is not None) is is_legal
        if is_legal:
            self.model[job_id] = job._replace(status=Status.PROCESSING, attempts=job.attempts + 1, due=0)

    @rule(number=NUMBERS, attempt=ATTEMPTS)
    def complete(self, number: int, attempt: int) -> None:
        self.end(number, attempt, Complete, "done")

    @rule(number=NUMBERS, attempt=ATTEMPTS)
    def fail(self, number: int, attempt: int) -> None:
        self.end(number, attempt, Fail, "broken")

    @rule(number=NUMBERS, attempt=ATTEMPTS)
    def release(self, number: int, attempt: int) -> None:
        self.end(number, attempt, Release)

    @rule(number=NUMBERS, attempt=ATTEMPTS)
    def cut_off(self, number: int, attempt: int) -> None:
        self.end(number, attempt, CutOff, "the executor is gone")

    @rule(number=NUMBERS, attempt=ATTEMPTS)
    def stop(self, number: int, attempt: int) -> None:
        self.end(number, attempt, Cancelled)

    @rule(number=NUMBERS)
    def die(self, number: int) -> None:
        """Let the Worker die that has the job in its hands, if one has."""
        job_id, job = self.pick(number)
        if job.status is Status.PROCESSING:
            ref: Any = SimpleNamespace(tell=self.store.ask)
            worker = Worker(ref, self.store.channel, simulated(0), self.store.interrupts)
            worker._running = Run(self.store.ask(Get(job_id)))
            worker.on_failure(ValueError, ValueError("a bug"), None)
            self.model[job_id] = self.ended(job, Fail)._replace(is_unwanted=False, crashes=0)

    @rule(number=NUMBERS)
    def cancel(self, number: int) -> None:
        job_id, job = self.pick(number)
        is_legal = job.status in (Status.PENDING, Status.PROCESSING)
        assert self.does(Cancel(job_id)) is is_legal
        if job.status is Status.PENDING:
            self.model[job_id] = job._replace(status=Status.CANCELLED)
        elif is_legal:
            self.model[job_id] = job._replace(is_unwanted=True)

    @rule(number=NUMBERS)
    def retry(self, number: int) -> None:
        job_id, job = self.pick(number)
        is_legal = job.status in (Status.FAILED, Status.CANCELLED) and not self.is_full()
        assert self.does(Retry(job_id)) is is_legal
        if is_legal:
            self.model[job_id] = job._replace(status=Status.PENDING, crashes=0, due=0)

    @rule()
    def crash(self) -> None:
        # Never twice under a job: what becomes of suspects has tests of its own.
        reserved = set(self.store.ledger._runs.reserved)
        hit = {
            job_id: job
            for job_id, job in self.model.items()
            if job.status is Status.PROCESSING or job_id in reserved
        }
        cut_off = any(job.crashes for job in hit.values())
        self.store.crash(cut_off=cut_off)
        for job_id, job in hit.items():
            self.store.interrupts.forget(job_id)
            self.model[job_id] = job._replace(
                status=Status.CANCELLED if job.is_unwanted else Status.PENDING,
                attempts=job.attempts + (job_id in reserved),
                is_unwanted=False,
                crashes=job.crashes + (not cut_off),
                interruptions=job.interruptions + 1,
                due=0,
            )

    @invariant()
    def what_is_reserved_is_pending_and_due(self) -> None:
        for job_id in self.store.ledger._runs.reserved:
            assert self.model[job_id].status is Status.PENDING
            assert self.model[job_id].due <= self.store.seconds()

    @invariant()
    def the_store_agrees(self) -> None:
        jobs = self.store.ask(ListJobs())
        assert {job.id: (job.status, job.attempts) for job in jobs} == {
            job_id: job[:2] for job_id, job in self.model.items()
        }

    @invariant()
    def the_counts_agree(self) -> None:
        assert_totals(self.store.database)


TestHistories = Histories.TestCase
TestHistories.settings = settings(stateful_step_count=40, deadline=None)


def test_an_await_after_a_retry_waits_even_if_all_of_it_happens_in_one_batch() -> None:
    store = Store()
    job = store.ask(EMAIL)
    store.more_is_waiting(True)
    cancel, retry = store.send(Cancel(job.id)), store.send(Retry(job.id))
    store.more_is_waiting(False)
    waiting = store.send(Await(job.id))
    assert cancel.get(timeout=0).status is Status.CANCELLED
    assert retry.get(timeout=0).status is Status.PENDING
    assert not is_answered(waiting)
    store.ask(Cancel(job.id))
    assert waiting.get(timeout=0).status is Status.CANCELLED


def test_an_id_is_not_given_out_again_after_its_job_was_deleted_and_the_clock_set_back(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "jobs.db")
    store = Store(path, keep_finished=1)
    oldest = store.ask(EMAIL)
    store.now -= timedelta(hours=1)
    deleted = [store.ask(EMAIL).id for _ in range(20)]
    for job_id in [*deleted, oldest.id]:
        store.ask(Cancel(job_id))
    assert [job.id for job in store.ask(ListJobs())] == [oldest.id]
    store.database.close()
    later = Store(path)
    later.now -= timedelta(hours=1)
    assert not {later.ask(EMAIL).id for _ in range(20)} & set(deleted)
