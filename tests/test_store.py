"""The JobStore, built but not started: messages are handled by calling it, and time is a variable."""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.database import Database
from actors.errors import (
    CapacityReached,
    Draining,
    GoferError,
    IllegalMove,
    InvalidJob,
    JobNotFound,
    StorageFailed,
)
from actors.lifecycle import Job, Status
from actors.mailbox import Channel, Delivery
from actors.messages import (
    Await,
    Claim,
    Complete,
    Drain,
    Fail,
    Get,
    ListJobs,
    Progress,
    Recover,
    Release,
    Run,
    Submit,
)
from actors.reply import Reply
from actors.store import BATCH, JobStore

EMAIL = Submit("email", {"to": "user@example.com"})


class Store:
    """A JobStore that one calls."""

    def __init__(self, path: str = ":memory:", **options: Any) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.database = Database(path)
        self.channel = Channel()
        self.actor = JobStore(self.database, self.channel, clock=lambda: self.now, **options)

    def __del__(self) -> None:
        self.database.close()

    def send(self, message: Any) -> Reply[Any]:
        """Handle the message as pykka's loop would, and return the reply that its asker holds."""
        reply: Reply[Any] = Reply()
        reply.set(self.actor.on_receive(message))
        return reply

    def ask(self, message: Any) -> Any:
        return self.send(message).get(timeout=0)

    def delivered(self) -> list[str]:
        """Take everything that the Workers would receive."""
        ids = []
        while isinstance(message := self.channel.take(), Run):
            ids.append(message.id)
        return ids

    def more_is_waiting(self, is_waiting: bool) -> None:
        """Put something into the mailbox, so that a batch stays open, or take it out."""
        if is_waiting:
            self.actor.actor_inbox.put(Delivery(Drain()))
        else:
            self.actor.actor_inbox.get()

    def fill_disk(self) -> Callable[[], object]:
        """Let every write that needs a new page fail with SQLITE_FULL; return what undoes that."""
        connection = self.database._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return lambda: connection.execute("PRAGMA max_page_count = 1073741823")


def test_a_submitted_job_is_stored_pending_and_handed_to_the_channel() -> None:
    store = Store()
    job = store.ask(EMAIL)
    assert (job.type, job.status, job.attempts, job.created_at) == ("email", "pending", 0, store.now)
    assert store.delivered() == [job.id]
    assert store.ask(Get(job.id)).payload == {"to": "user@example.com"}


def test_a_job_goes_from_pending_over_processing_to_completed() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    claimed = store.ask(Claim(job_id))
    assert (claimed.status, claimed.attempts, claimed.payload) == ("processing", 1, EMAIL.payload)
    store.now += timedelta(seconds=1)
    store.ask(Complete(job_id, 1, {"sent": True}))
    job = store.ask(Get(job_id))
    assert (job.status, job.result) == ("completed", {"sent": True})
    assert job.finished_at - job.started_at == timedelta(seconds=1)


def test_a_job_is_handed_out_once_however_often_it_is_claimed() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    assert store.ask(Claim(job_id)) is not None
    assert store.ask(Claim(job_id)) is None


def test_an_outcome_counts_once() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.ask(Claim(job_id))
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
    store.ask(Claim(job_id))
    store.ask(Release(job_id, 1))
    assert store.delivered() == [job_id]
    assert store.ask(Claim(job_id)).attempts == 1


def test_a_submit_beyond_the_capacity_is_refused_and_nowhere() -> None:
    store = Store(capacity=2)
    first = store.ask(EMAIL)
    store.ask(EMAIL)
    with pytest.raises(CapacityReached, match="2 jobs are pending"):
        store.ask(EMAIL)
    assert len(store.ask(ListJobs())) == 2
    store.ask(Claim(first.id))
    assert store.ask(EMAIL).status == "pending"


@pytest.mark.parametrize("job_type", ["", "x" * 256, "new\nline", 5])
def test_a_job_of_no_proper_type_cannot_even_be_described(job_type: Any) -> None:
    with pytest.raises(InvalidJob, match="`type` must be a string of 1 to 255 printable characters"):
        Submit(job_type)


def test_a_payload_that_is_not_json_is_refused_and_harms_no_other_job() -> None:
    store = Store()
    store.more_is_waiting(True)
    good = store.send(EMAIL)
    bad = store.send(Submit("email", {"to": object()}))
    store.more_is_waiting(False)
    assert store.ask(ListJobs()) != []
    assert good.get(timeout=0).status == "pending"
    with pytest.raises(InvalidJob, match="`payload` is not JSON"):
        bad.get(timeout=0)


@pytest.mark.parametrize("job_id", ["", "nope", "0" * 16, "f" * 16, "0x" + "1" * 14, "\u0661" * 16])
def test_an_unknown_id_is_not_found_whatever_it_looks_like(job_id: str) -> None:
    store = Store()
    for message in (Get(job_id), Await(job_id), Complete(job_id, 1, None)):
        with pytest.raises(JobNotFound):
            store.ask(message)
    assert store.ask(Claim(job_id)) is None


def test_a_list_is_in_the_order_of_submission_and_can_be_walked() -> None:
    store = Store()
    ids = [store.ask(Submit("odd" if n % 2 else "even")).id for n in range(10)]
    assert [job.id for job in store.ask(ListJobs())] == ids
    assert [job.id for job in store.ask(ListJobs(limit=3, after=ids[3]))] == ids[4:7]
    assert [job.id for job in store.ask(ListJobs(limit=3, after=ids[3], order="newest"))] == ids[2::-1]
    assert [job.id for job in store.ask(ListJobs(type="odd"))] == ids[1::2]
    store.ask(Claim(ids[4]))
    assert [job.id for job in store.ask(ListJobs(status=Status.PROCESSING))] == [ids[4]]
    assert [job.id for job in store.ask(ListJobs(status=Status.PENDING, type="even"))] == [
        ids[n] for n in (0, 2, 6, 8)
    ]


def test_progress_is_shown_while_the_job_runs_and_gone_when_it_is_finished() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.ask(Progress(job_id, 0.1))
    assert store.ask(Get(job_id)).progress is None
    store.ask(Claim(job_id))
    store.ask(Progress(job_id, 0.5))
    assert store.ask(Get(job_id)).progress == 0.5
    assert store.ask(ListJobs())[0].progress == 0.5
    store.ask(Complete(job_id, 1, None))
    store.ask(Progress(job_id, 0.9))
    assert store.ask(Get(job_id)).progress is None


def test_an_await_is_answered_when_the_job_is_finished() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    early = store.send(Await(job_id))
    store.ask(Claim(job_id))
    assert not early._outcome
    store.ask(Complete(job_id, 1, 42))
    assert early.get(timeout=0).result == 42
    assert store.ask(Await(job_id)).result == 42


def test_a_drain_refuses_submits_and_claims_and_answers_who_waits() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    waiting = store.send(Await(job_id))
    store.ask(Drain())
    assert waiting.get(timeout=0).status == "pending"
    assert store.ask(Claim(job_id)) is None
    with pytest.raises(Draining, match="stopping"):
        store.ask(EMAIL)


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
    assert store.actor._counts[Status.PENDING] == 2


def test_a_claim_that_was_rolled_back_can_be_made_again() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.more_is_waiting(True)
    claim = store.send(Claim(job_id))
    store.send(Progress(job_id, 0.5))
    store.actor._roll_back(sqlite3.OperationalError("disk I/O error"))
    store.more_is_waiting(False)
    with pytest.raises(StorageFailed):
        claim.get(timeout=0)
    assert store.ask(Get(job_id)).status == "pending"
    assert store.ask(Claim(job_id)).attempts == 1


def test_a_message_that_it_does_not_know_is_refused() -> None:
    with pytest.raises(TypeError, match="JobStore understands no str message"):
        Store().ask("hello")


def test_only_so_many_finished_jobs_are_kept_and_the_oldest_go_first() -> None:
    store = Store(keep_finished=3)
    ids = [store.ask(EMAIL).id for _ in range(10)]
    for job_id in ids[:8]:
        store.ask(Claim(job_id))
        store.now += timedelta(seconds=1)
        store.ask(Complete(job_id, 1, None))
    assert [job.id for job in store.ask(ListJobs())] == ids[5:]
    assert store.actor._counts == {"pending": 2, "processing": 0, "completed": 3, "failed": 0}


def test_recovery_hands_out_what_an_earlier_process_left(tmp_path: Path) -> None:
    path = str(tmp_path / "jobs.db")
    before = Store(path)
    ids = [before.ask(EMAIL).id for _ in range(3)]
    before.ask(Claim(ids[0]))
    before.ask(Claim(ids[1]))
    before.ask(Complete(ids[1], 1, None))
    before.database.close()
    after = Store(path)
    assert after.ask(Recover()) == 2
    assert after.delivered() == [ids[0], ids[2]]
    assert after.ask(Claim(ids[0])).attempts == 2
    assert after.ask(EMAIL).id > max(ids)


class Histories(RuleBasedStateMachine):
    """Whatever happens, the store agrees with a dict that holds what the table of moves allows."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(capacity=5, keep_finished=0)
        self.model: dict[str, tuple[Status, int]] = {}

    def does(self, message: Any) -> bool:
        try:
            return self.store.ask(message) is not None or not isinstance(message, Claim)
        except GoferError:
            return False

    def pick(self, number: int) -> str:
        return sorted(self.model)[number % len(self.model)] if self.model else "0" * 16

    def end(self, number: int, attempt: int, message: type[Any], after: Status, *extra: str) -> None:
        job_id = self.pick(number)
        status, attempts = self.model.get(job_id, (None, 0))
        is_legal = status is Status.PROCESSING and attempts == attempt
        assert self.does(message(job_id, attempt, *extra)) is is_legal
        if is_legal:
            self.model[job_id] = (after, attempts - (message is Release))

    @rule()
    def submit(self) -> None:
        is_full = sum(status is Status.PENDING for status, _ in self.model.values()) >= 5
        try:
            job: Job = self.store.ask(EMAIL)
        except CapacityReached:
            assert is_full
        else:
            assert not is_full
            self.model[job.id] = (Status.PENDING, 0)

    @rule(number=st.integers(0, 50))
    def claim(self, number: int) -> None:
        job_id = self.pick(number)
        status, attempts = self.model.get(job_id, (None, 0))
        assert self.does(Claim(job_id)) is (status is Status.PENDING)
        if status is Status.PENDING:
            self.model[job_id] = (Status.PROCESSING, attempts + 1)

    @rule(number=st.integers(0, 50), attempt=st.integers(1, 3))
    def complete(self, number: int, attempt: int) -> None:
        self.end(number, attempt, Complete, Status.COMPLETED, "done")

    @rule(number=st.integers(0, 50), attempt=st.integers(1, 3))
    def fail(self, number: int, attempt: int) -> None:
        self.end(number, attempt, Fail, Status.FAILED, "broken")

    @rule(number=st.integers(0, 50), attempt=st.integers(1, 3))
    def release(self, number: int, attempt: int) -> None:
        self.end(number, attempt, Release, Status.PENDING)

    @rule()
    def crash(self) -> None:
        self.store.ask(Recover())
        for job_id, (status, attempts) in self.model.items():
            if status is Status.PROCESSING:
                self.model[job_id] = (Status.PENDING, attempts)

    @invariant()
    def the_store_agrees(self) -> None:
        jobs = self.store.ask(ListJobs())
        assert {job.id: (job.status, job.attempts) for job in jobs} == self.model

    @invariant()
    def the_counts_agree(self) -> None:
        for status, count in self.store.actor._counts.items():
            assert count == sum(status is other for other, _ in self.model.values())


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
