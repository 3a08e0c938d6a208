"""The backlog: each pending job gets to the channel once and in its order, however many there are."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import Raw

import actors.store.backlog
from actors import lifecycle
from actors.lifecycle import FIRST_ID, Job, Status
from actors.messages import ListJobs, Run
from actors.messaging.channel import Channel
from actors.store.backlog import Backlog
from actors.store.database import Database

DELAYS = st.sampled_from([0, 0, 1, 5, 5, 20])


class Queues:
    """A database with jobs, and the channel into which a backlog sends them; time stands still."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.database = Database(":memory:")
        self.last_id = FIRST_ID
        self.start()

    def start(self) -> None:
        """Begin anew with what is in the database."""
        self.channel = Channel(monotonic=self._seconds)
        self.backlog = Backlog(self.database, self.channel, lambda: self.now)

    def _seconds(self) -> float:
        return self.now.timestamp()

    def store(self, delay: float = 0) -> Job:
        """Store a job, without sending it."""
        self.last_id = lifecycle.new_id(self.now, 0, self.last_id)
        job = lifecycle.submitted(self.last_id, "email", self.now, delay=delay)
        self.database.insert(job, Raw(b"{}"))
        self.database.commit()
        return job

    def recover(self) -> None:
        self.channel.clear()
        self.backlog = Backlog(self.database, self.channel, lambda: self.now)
        self.backlog.send([])

    def take(self) -> str | None:
        """Take the next job that is due, and claim it."""
        while isinstance(run := self.channel.take(), Run):
            job = self.database.get(run.id)
            assert job is not None
            is_claimed = job.status is Status.PENDING and lifecycle.is_due(job, self.now)
            if is_claimed:
                self.database.update(job, lifecycle.claimed(job, self.now))
                self.database.commit()
            self.backlog.send([])
            if is_claimed:
                return job.id
        return None

    def take_all(self) -> list[str]:
        return list(iter(self.take, None))


@pytest.fixture
def queues() -> Iterator[Queues]:
    queues = Queues()
    yield queues
    queues.database.close()


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors.store.backlog, "PAGE", 4)
    monkeypatch.setattr(actors.store.backlog, "AGAIN", 2)
    monkeypatch.setattr(actors.store.backlog, "MOST", 20)


@pytest.mark.usefixtures("small_pages")
def test_of_many_jobs_only_the_next_few_are_in_the_channel(queues: Queues) -> None:
    for delay in (0, 60) * 50:
        queues.store(delay)
    queues.recover()
    assert (queues.channel.immediate, queues.channel.delayed) == (4, 4)


@pytest.mark.usefixtures("small_pages")
def test_of_many_delayed_jobs_those_that_are_due_first_come_first(queues: Queues) -> None:
    ids = [queues.store(delay).id for delay in range(30, 0, -1)]
    queues.recover()
    assert queues.take_all() == []
    queues.now += timedelta(seconds=60)
    assert queues.take_all() == ids[::-1]


@pytest.mark.usefixtures("small_pages")
def test_many_jobs_that_were_due_long_ago_are_not_sent_all_at_once(queues: Queues) -> None:
    ids = [queues.store(delay=1).id for _ in range(30)]
    queues.now += timedelta(days=1)
    queues.recover()
    assert queues.channel.delayed == 4
    assert queues.take_all() == ids


@pytest.mark.usefixtures("small_pages")
def test_a_job_without_a_delay_does_not_wait_for_delayed_ones(queues: Queues) -> None:
    for _ in range(30):
        queues.store(delay=60)
    queues.recover()
    job = queues.store()
    queues.backlog.send([job])
    assert queues.take_all() == [job.id]


@pytest.mark.usefixtures("small_pages")
def test_delayed_jobs_get_their_turn_under_a_steady_load(queues: Queues) -> None:
    delayed = {queues.store(delay=1).id for _ in range(30)}
    queues.recover()
    queues.now += timedelta(seconds=1)
    queues.backlog.send([queues.store() for _ in range(3)])
    taken = set()
    for _ in range(100):
        queues.backlog.send([queues.store()])
        taken.add(queues.take())
    assert delayed <= taken


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("delay", [0, 60])
def test_cancelled_jobs_do_not_pile_up_in_the_channel(queues: Queues, delay: float) -> None:
    for _ in range(1000):
        job = queues.store(delay)
        queues.backlog.send([job])
        queues.database.update(job, lifecycle.cancelled(job, queues.now))
        queues.database.commit()
        assert queues.channel.immediate + queues.channel.delayed <= 21
    last = queues.store()
    queues.backlog.send([last])
    queues.now += timedelta(seconds=60)
    assert last.id in queues.take_all()


@pytest.mark.usefixtures("small_pages")
def test_more_jobs_than_the_channel_is_to_hold_are_all_run_in_their_order(queues: Queues) -> None:
    ids = []
    for _ in range(100):
        job = queues.store()
        queues.backlog.send([job])
        ids.append(job.id)
    assert queues.channel.immediate <= 21
    assert queues.take_all() == ids


def test_a_closed_channel_makes_it_read_nothing(queues: Queues) -> None:
    for _ in range(10):
        queues.store()
    queues.channel.close()
    reads: list[str] = []
    queues.database._connection.set_trace_callback(reads.append)
    queues.backlog.send([])
    assert reads == []


class Histories(RuleBasedStateMachine):
    """Whatever is submitted, taken, given back or found by a start: each job is taken once for each time."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(actors.store.backlog, "PAGE", 4)
        self.patch.setattr(actors.store.backlog, "AGAIN", 2)
        self.patch.setattr(actors.store.backlog, "MOST", 20)
        self.queues = Queues()
        self.pending: set[str] = set()
        self.running: list[str] = []

    def teardown(self) -> None:
        self.queues.now += timedelta(seconds=60)
        for job_id in self.queues.take_all():
            self.pending.remove(job_id)
        self.queues.database.close()
        self.patch.undo()
        assert not self.pending

    @rule(delays=st.lists(DELAYS, max_size=12))
    def submit(self, delays: list[float]) -> None:
        jobs = [self.queues.store(delay) for delay in delays]
        self.queues.backlog.send(jobs)
        self.pending.update(job.id for job in jobs)

    @rule(times=st.integers(1, 6))
    def take(self, times: int) -> None:
        for _ in range(times):
            if (job_id := self.queues.take()) is not None:
                self.pending.remove(job_id)
                self.running.append(job_id)

    @rule(times=st.integers(1, 6))
    def cancel(self, times: int) -> None:
        for job_id in sorted(self.pending)[:times]:
            before = self.queues.database.get(job_id)
            assert before is not None
            self.queues.database.update(before, lifecycle.cancelled(before, self.queues.now))
            self.pending.remove(job_id)
        self.queues.database.commit()

    @rule(delay=DELAYS)
    def fail(self, delay: float) -> None:
        if self.running:
            before = self.queues.database.get(self.running.pop(0))
            assert before is not None
            after = lifecycle.backed_off(before, before.attempts, "failed", self.queues.now, delay)
            self.queues.database.update(before, after)
            self.queues.database.commit()
            self.queues.backlog.send([after])
            self.pending.add(after.id)

    @rule(seconds=st.integers(1, 10))
    def wait(self, seconds: int) -> None:
        self.queues.now += timedelta(seconds=seconds)

    @rule()
    def start_again(self) -> None:
        self.queues.start()
        self.queues.recover()

    @invariant()
    def the_pending_jobs_are_those_of_the_model(self) -> None:
        assert {job.id for job in self.queues.database.page(ListJobs(Status.PENDING))} == self.pending


TestHistories = Histories.TestCase
TestHistories.settings = settings(stateful_step_count=30, deadline=None)
