"""The backlog: each pending job comes to be next once and in its order, however many there are."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import Raw

import actors.store.backlog
from actors import lifecycle
from actors.lifecycle import FIRST_ID, Job, Status
from actors.messages import Due, ListJobs
from actors.messaging.channel import Channel
from actors.store.backlog import Backlog
from actors.store.changes import Changes
from actors.store.database import Database

DELAYS = st.sampled_from([0, 0, 1, 5, 5, 20])
TAKES = st.integers(0, 6)


class Queues:
    """A database with jobs and the line of a backlog, from which jobs are reserved; time stands still."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.database = Database(":memory:")
        self.last_id = FIRST_ID
        self.start()

    def start(self) -> None:
        """Begin anew with what is in the database."""
        self.delayed = Channel(monotonic=self._seconds)
        self.backlog = Backlog(self.database, self.delayed, lambda: self.now)

    def _seconds(self) -> float:
        return self.now.timestamp()

    @property
    def line(self) -> list[Due]:
        return list(self.backlog._line)

    def store(self, delay: float = 0) -> Job:
        """Store a job, without a commit."""
        self.last_id = lifecycle.new_id(self.now, 0, self.last_id)
        job = lifecycle.submitted(self.last_id, "email", self.now, delay=delay)
        self.database.insert(job, Raw(b"{}"))
        return job

    def find(self, job_id: str) -> Job | None:
        found = self.database.find(job_id)
        return found and found[0]

    def move(self, before: Job, after: Job) -> Job:
        self.database.update(before, after)
        return after

    def submit(self, *delays: float) -> list[str]:
        """Store jobs with these delays, in one commit; return their ids."""
        jobs = [self.store(delay) for delay in delays]
        self.commit(jobs)
        return [job.id for job in jobs]

    def commit(self, runnable: list[Job], takes: int = 0, *, fails: bool = False) -> list[str]:
        """Commit, or roll back, as the JobStore does; return the jobs that were taken out of the line."""
        while isinstance(due := self.delayed.take(), Due):
            self.backlog.put(due)
        self.backlog.add(runnable)
        self.backlog.refill()
        taken = list(islice(iter(self._claim, None), takes))
        if fails:
            self.database.rollback()
            self.backlog.rollback()
            return []
        self.database.commit()
        self.backlog.commit(Changes(runnable=runnable))
        return taken

    def _claim(self) -> str | None:
        """Take the next job that can run out of the line."""
        while (due := self.backlog.first()) is not None:
            self.backlog.take()
            job = self.find(due.id)
            if job and job.status is Status.PENDING and lifecycle.is_due(job, self.now):
                return self.move(job, lifecycle.claimed(job, self.now)).id
        return None

    def take_all(self) -> list[str]:
        """Take one job in each commit until there is none."""
        taken: list[str] = []
        while (one := self.commit([], takes=1)) or self.delayed.seconds_to_next() == 0:
            taken += one
        return taken

    def settle(self) -> None:
        """Commit until nothing more becomes due, as nothing undoes that."""
        self.commit([])
        while self.delayed.seconds_to_next() == 0:
            self.commit([])


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
def test_of_many_jobs_only_the_next_few_are_in_the_line(queues: Queues) -> None:
    queues.submit(*(0, 60) * 50)
    queues.start()
    queues.commit([])
    assert (len(queues.line), queues.delayed.delayed) == (4, 4)


@pytest.mark.usefixtures("small_pages")
def test_of_many_delayed_jobs_those_that_are_due_first_come_first(queues: Queues) -> None:
    ids = queues.submit(*range(30, 0, -1))
    queues.start()
    assert queues.take_all() == []
    queues.now += timedelta(seconds=60)
    assert queues.take_all() == ids[::-1]


@pytest.mark.usefixtures("small_pages")
def test_many_jobs_that_were_due_long_ago_are_not_read_all_at_once(queues: Queues) -> None:
    ids = queues.submit(*[1] * 30)
    queues.now += timedelta(days=1)
    queues.start()
    for _ in range(10):
        queues.commit([])
        assert len(queues.line) + queues.delayed.delayed <= 5
    assert queues.take_all() == ids


@pytest.mark.usefixtures("small_pages")
def test_a_job_without_a_delay_does_not_wait_for_delayed_ones(queues: Queues) -> None:
    queues.submit(*[60] * 30)
    queues.start()
    assert queues.submit(0) == queues.take_all()


@pytest.mark.usefixtures("small_pages")
def test_delayed_jobs_get_their_turn_under_a_steady_load(queues: Queues) -> None:
    delayed = set(queues.submit(*[1] * 30))
    queues.start()
    queues.now += timedelta(seconds=1)
    queues.submit(0, 0, 0)
    taken = set()
    for _ in range(100):
        taken.update(queues.commit([queues.store()], takes=1))
    assert delayed <= taken


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("delay", [0, 60])
def test_cancelled_jobs_do_not_pile_up_in_the_line(queues: Queues, delay: float) -> None:
    for _ in range(1000):
        job = queues.store(delay)
        queues.commit([job])
        queues.move(job, lifecycle.cancelled(job, queues.now))
        queues.commit([])
        assert len(queues.line) + queues.delayed.delayed <= 21
    (last,) = queues.submit(0)
    queues.now += timedelta(seconds=60)
    assert last in queues.take_all()


@pytest.mark.usefixtures("small_pages")
def test_more_jobs_than_the_line_is_to_hold_are_all_run_in_their_order(queues: Queues) -> None:
    ids = [job_id for _ in range(100) for job_id in queues.submit(0)]
    assert len(queues.line) <= 21
    assert queues.take_all() == ids


def test_where_all_is_in_the_line_nothing_is_read(queues: Queues) -> None:
    queues.submit(*[0, 60] * 10)
    reads: list[str] = []
    queues.database._connection.set_trace_callback(reads.append)
    queues.commit([])
    assert reads == []


# What is undone.


def test_a_commit_that_fails_leaves_the_line_as_it_was(queues: Queues) -> None:
    queues.settle()
    queues.submit(0, 0, 60)
    before = queues.line
    assert queues.commit([queues.store(), queues.store(60)], takes=3, fails=True) == []
    assert queues.line == before
    assert queues.delayed.delayed == 1
    assert queues.take_all() == [due.id for due in before]


def test_what_was_put_stays_in_the_line_although_a_commit_fails(queues: Queues) -> None:
    queues.settle()
    queues.submit(0)
    before = queues.line
    queues.backlog.add([queues.store()])
    queues.backlog.put(due := Due("1", "email"))
    queues.backlog.take()
    queues.backlog.rollback()
    assert queues.line == [*before, due]


@pytest.mark.usefixtures("small_pages")
def test_a_page_that_was_read_for_a_commit_that_fails_is_read_again(queues: Queues) -> None:
    ids = queues.submit(*[0] * 10)
    queues.start()
    queues.commit([], takes=10, fails=True)
    assert queues.line == []
    assert queues.take_all() == ids


class Histories(RuleBasedStateMachine):
    """Whatever is submitted, taken, given back, rolled back or found by a start: each job is taken once."""

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

    def commit(self, work: Callable[[], list[Job]], takes: int, *, fails_first: bool) -> None:
        """Do this work, which returns what becomes pending by it, and take so many jobs out of the line."""
        if fails_first:
            self.queues.settle()
            before, marks = self.queues.line, self.queues.backlog._durable
            is_long = len(before) + self.queues.delayed.delayed > 20
            self.queues.commit(work(), takes, fails=True)
            if not is_long:
                assert (self.queues.line, self.queues.backlog._durable) == (before, marks)
        runnable = work()
        self.pending.update(job.id for job in runnable)
        for job_id in self.queues.commit(runnable, takes):
            self.pending.remove(job_id)
            self.running.append(job_id)

    @rule(delays=st.lists(DELAYS, max_size=12), takes=TAKES, fails_first=st.booleans())
    def submit(self, delays: list[float], takes: int, *, fails_first: bool) -> None:
        self.commit(lambda: [self.queues.store(delay) for delay in delays], takes, fails_first=fails_first)

    @rule(times=st.integers(1, 6), fails_first=st.booleans())
    def cancel(self, times: int, *, fails_first: bool) -> None:
        ids = sorted(self.pending)[:times]

        def work() -> list[Job]:
            for before in filter(None, map(self.queues.find, ids)):
                self.queues.move(before, lifecycle.cancelled(before, self.queues.now))
            return []

        self.pending.difference_update(ids)
        self.commit(work, 0, fails_first=fails_first)

    @rule(delay=DELAYS, takes=TAKES, fails_first=st.booleans())
    def fail(self, delay: float, takes: int, *, fails_first: bool) -> None:
        ids = [self.running.pop(0)] if self.running else []

        def work() -> list[Job]:
            jobs = filter(None, map(self.queues.find, ids))
            now = self.queues.now
            return [
                self.queues.move(job, lifecycle.backed_off(job, job.attempts, "failed", now, delay))
                for job in jobs
            ]

        self.commit(work, takes, fails_first=fails_first)

    @rule(seconds=st.integers(1, 10))
    def wait(self, seconds: int) -> None:
        self.queues.now += timedelta(seconds=seconds)

    @rule()
    def start_again(self) -> None:
        self.queues.start()
        self.queues.commit([])

    @invariant()
    def the_pending_jobs_are_those_of_the_model(self) -> None:
        assert {job.id for job in self.queues.database.page(ListJobs(Status.PENDING))} == self.pending


TestHistories = Histories.TestCase
TestHistories.settings = settings(stateful_step_count=30, deadline=None)
