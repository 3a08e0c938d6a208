"""The wall clock jumps, and the monotonic one stands still while the machine sleeps: delays end in time."""

import random
import sqlite3
import threading
import time
from collections import Counter, deque
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from actors import Await, Settings, Submit, start
from actors import system as wiring
from actors.errors import StorageFailed
from actors.lifecycle import Status
from actors.messages import Cancel, Due, Fail, Get, Retry, Run
from actors.messaging import channel as channels
from actors.messaging.channel import LOOK, Channel
from actors.messaging.mailbox import Mailbox
from actors.store import backlog
from tests.calling import EMAIL, Store, run
from tests.service import eventually

HOUR = 3600.0
#: Seconds after which a test gives up; nothing waits for so long unless it is broken.
LIMIT = 20.0


class Clocks:
    """A monotonic clock and a wall clock, which jump as one likes."""

    def __init__(self) -> None:
        self.monotonic = 100.0
        self.wall = 1e9

    def channel(self) -> Channel:
        return Channel(lambda: self.monotonic, lambda: self.wall)

    def passes(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds

    def send(self, channel: Channel, name: str, delay: float) -> None:
        channel.send(run(name), delay, self.wall + delay)


def taken(channel: Channel) -> list[str]:
    with channel.lock:
        return [run.id for run in iter(channel.take, None) if isinstance(run, Run)]


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def test_a_clock_that_is_set_back_delays_nothing(clocks: Clocks) -> None:
    channel = clocks.channel()
    clocks.send(channel, "soon", 3)
    clocks.wall -= HOUR
    clocks.passes(2.9)
    assert taken(channel) == []
    clocks.passes(0.2)
    assert taken(channel) == ["soon"]


def test_a_clock_that_is_set_forward_makes_a_job_early_by_that_much_at_most(clocks: Clocks) -> None:
    channel = clocks.channel()
    clocks.send(channel, "soon", HOUR + 10)
    clocks.send(channel, "late", 2 * HOUR + 10)
    clocks.wall += HOUR
    clocks.passes(9)
    assert taken(channel) == []
    clocks.passes(2)
    assert taken(channel) == ["soon"]
    clocks.wall -= HOUR
    clocks.passes(HOUR - 2)
    assert taken(channel) == []
    clocks.passes(2)
    assert taken(channel) == ["late"]


def test_a_job_that_came_due_while_the_machine_slept_is_due_on_waking(clocks: Clocks) -> None:
    channel = clocks.channel()
    clocks.send(channel, "slept", HOUR)
    clocks.wall += 2 * HOUR
    assert taken(channel) == ["slept"]


def test_an_overdue_job_is_due_when_a_clock_that_was_behind_at_the_start_is_set_right(clocks: Clocks) -> None:
    clocks.wall -= 30 * 24 * HOUR
    channel = clocks.channel()
    channel.send(run("overdue"), 30 * 24 * HOUR - 5, clocks.wall + 30 * 24 * HOUR - 5)
    assert taken(channel) == []
    clocks.wall += 30 * 24 * HOUR
    assert taken(channel) == ["overdue"]


def test_a_clock_that_is_set_forward_wakes_a_receiver_for_each_job_that_it_makes_due(clocks: Clocks) -> None:
    channel = clocks.channel()
    received: list[object] = []
    idle = threading.Thread(target=lambda: received.append(channel.receive(deque())), daemon=True)
    clocks.send(channel, "first", HOUR)
    clocks.send(channel, "second", HOUR)
    idle.start()
    eventually(lambda: channel.waiting == 1)
    clocks.wall += HOUR
    assert channel.receive(deque()) == run("first")
    idle.join(LIMIT)
    assert received == [run("second")]


def test_an_idle_receiver_looks_at_the_wall_clock_once_a_minute(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = clocks.channel()
    waits: list[float | None] = []

    def wait(seconds: float | None = None) -> None:
        waits.append(seconds)
        clocks.passes(seconds or 0)
        clocks.wall += HOUR

    monkeypatch.setattr(channel.changed, "wait", wait)
    clocks.send(channel, "later", 10 * HOUR)
    mailbox = Mailbox()
    mailbox.open(threading.Event(), channel)
    assert mailbox.get().message == run("later")
    assert set(waits) == {LOOK}


def test_a_delayed_message_wakes_one_of_many_idle_receivers() -> None:
    channel = Channel()
    wakes: Counter[str] = Counter()
    asleep, taken_all = threading.Semaphore(0), threading.Barrier(5)
    wait = channel.changed.wait

    def watched(timeout: float | None = None) -> bool:
        asleep.release()
        woken = wait(timeout)
        wakes["all"] += 1
        return woken

    channel.changed.wait = watched  # type: ignore[method-assign]

    def receive() -> None:
        mailbox = Mailbox()
        mailbox.open(threading.Event(), channel)
        while mailbox.get().message.id != "end":
            pass
        taken_all.wait(LIMIT)

    threads = [threading.Thread(target=receive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert asleep.acquire(timeout=LIMIT)
    for number in range(10):
        channel.send(run(str(number)), 0.01 * number, time.time() + 0.01 * number)
    for _ in threads:
        channel.send(run("end"), 0.2, time.time() + 0.2)
    taken_all.wait(LIMIT)
    for thread in threads:
        thread.join()
    # One for each message, one for each receiver that takes over the timing, a few for the start.
    assert wakes["all"] <= 14 * 2 + 8


# The store.


@pytest.mark.parametrize("back", [0.5, HOUR])
def test_a_delay_ends_when_the_channel_says_so_whatever_the_wall_clock_says(back: float) -> None:
    store = Store()
    job = store.ask(Submit("email", delay=3))
    store.jumped -= timedelta(seconds=back)
    store.now += timedelta(seconds=3)
    assert store.claim(job.id).attempts == 1


@pytest.mark.parametrize("back", [0.5, HOUR])
def test_a_backoff_ends_when_the_channel_says_so(back: float) -> None:
    store = Store()
    job_id = store.ask(Submit("email", max_retries=1)).id
    store.claim(job_id)
    store.ask(Fail(job_id, 1, "broken"))
    store.jumped -= timedelta(seconds=back)
    store.now += timedelta(seconds=1)
    assert store.claim(job_id).attempts == 2


def test_a_message_of_an_earlier_wait_runs_no_job_early() -> None:
    store = Store()
    job = store.ask(Submit("email", max_retries=1, delay=60))
    store.ask(Cancel(job.id))
    store.ask(Retry(job.id))
    store.claim(job.id)
    store.now += timedelta(seconds=59.5)
    store.ask(Fail(job.id, 1, "broken"))
    store.now += timedelta(seconds=0.5)
    assert store.claim(job.id) is None
    assert store.ask(Get(job.id)).status == "pending"


def test_ids_rise_although_the_clock_is_set_back() -> None:
    store = Store()
    first = store.ask(EMAIL).id
    store.now -= timedelta(days=30)
    assert store.ask(EMAIL).id > first


# The whole.


# Delayed jobs that are only in the database, as the channel holds a page of them.


def delayed(store: Store, *seconds: float) -> list[str]:
    """Submit a job for each delay, then keep them in the database alone but for the first of them."""
    ids = [store.ask(Submit("email", delay=delay)).id for delay in seconds]
    store.recover()
    return ids


@pytest.fixture
def paged(monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store whose channel holds one delayed job at a time."""
    monkeypatch.setattr(backlog, "PAGE", 1)
    monkeypatch.setattr(backlog, "AGAIN", 1)
    return Store()


def test_delayed_jobs_that_are_only_in_the_database_are_not_late_when_the_clock_is_set_back(
    paged: Store,
) -> None:
    ids = delayed(paged, 10, 20, 30)
    paged.jumped -= timedelta(seconds=HOUR)
    paged.now += timedelta(seconds=10)
    assert paged.delivered() == ids[:1]
    assert paged.claim(ids[0]).status is Status.PROCESSING
    paged.now += timedelta(seconds=10)
    assert paged.delivered() == ids[1:2]
    assert paged.claim(ids[1]).status is Status.PROCESSING
    paged.now += timedelta(seconds=9)
    assert paged.delivered() == []
    paged.now += timedelta(seconds=1)
    assert paged.delivered() == ids[2:]


def test_jobs_of_before_and_after_a_clock_was_set_back_are_due_in_the_order_of_their_waits(
    paged: Store,
) -> None:
    old = delayed(paged, 10, 30)
    paged.jumped -= timedelta(seconds=HOUR)
    new = [paged.ask(Submit("email", delay=delay)).id for delay in (20, 40)]
    assert paged.ask(Get(old[1])).run_at == paged.now + paged.jumped + timedelta(seconds=30)
    expected = [old[0], new[0], old[1], new[1]]
    for job_id in expected:
        paged.now += timedelta(seconds=9.9)
        assert paged.delivered() == []
        paged.now += timedelta(seconds=0.1)
        assert paged.delivered() == [job_id]
        assert paged.claim(job_id).status is Status.PROCESSING


def test_a_job_that_is_next_too_early_after_the_clock_was_set_back_waits_again() -> None:
    store = Store()
    job = store.ask(Submit("email", delay=10))
    store.now += timedelta(seconds=10)
    due = store.delayed.take()
    assert due == Due(job.id, "email", job.run_at)
    store.jumped -= timedelta(seconds=HOUR)
    store.ask(Submit("email", delay=1))
    store.jumped -= timedelta(seconds=0.5)  # Too little to be a jump: the clock is slowed down.
    store.send(due)
    assert store.delivered() == []
    store.now += timedelta(seconds=0.6)
    assert store.delivered() == [job.id]
    assert store.claim(job.id).status is Status.PROCESSING


def test_what_was_moved_for_a_batch_that_is_rolled_back_is_moved_again_for_the_next(paged: Store) -> None:
    (job_id,) = delayed(paged, 10)
    before = paged.ask(Get(job_id)).run_at
    paged.jumped -= timedelta(seconds=HOUR)
    paged.fail_writes = sqlite3.SQLITE_ERROR
    with pytest.raises(StorageFailed):
        paged.ask(Submit("email"))
    assert paged.ask(Get(job_id)).run_at == before
    paged.fail_writes = None
    paged.ask(Submit("email"))
    assert paged.ask(Get(job_id)).run_at == before - timedelta(seconds=HOUR)
    paged.ask(Submit("email"))
    assert paged.ask(Get(job_id)).run_at == before - timedelta(seconds=HOUR)


def test_a_clock_that_is_set_forward_moves_nothing_in_the_database(paged: Store) -> None:
    (job_id,) = delayed(paged, 10)
    before = paged.ask(Get(job_id)).run_at
    paged.jumped += timedelta(seconds=HOUR)
    paged.ask(Submit("email"))
    assert paged.ask(Get(job_id)).run_at == before


class JumpingWall:
    """The wall clock of a system, which jumps while it works."""

    def __init__(self) -> None:
        self.offset = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.offset)

    def seconds(self) -> float:
        return time.time() + self.offset


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> JumpingWall:
    wall = JumpingWall()
    monkeypatch.setattr(channels, "LOOK", 0.1)
    monkeypatch.setattr(wiring, "_now", wall.now)
    original = Channel.__init__

    def init(channel: Channel, monotonic: Any = time.monotonic, _wall: Any = None) -> None:
        original(channel, monotonic, wall.seconds)

    monkeypatch.setattr(Channel, "__init__", init)
    return wall


def test_nothing_is_lost_doubled_or_late_while_the_clock_jumps(wall: JumpingWall) -> None:
    chance = random.Random(7)
    runs: list[tuple[int, float]] = []
    settings = Settings(workers=4, capacity=10_000, keep_finished=0)
    submitted: dict[int, tuple[float, float]] = {}
    forward: list[tuple[float, float]] = []
    with start(settings, {"note": lambda number: runs.append((number, time.monotonic()))}) as system:
        waits = []
        for number in range(600):
            delay = chance.choice([0.0, 0.0, 0.3, 1.0])
            submitted[number] = (time.monotonic(), delay)
            job = system.store.ask(Submit("note", number, delay=delay), block=True)
            waits.append(system.store.ask(Await(job.id), block=False))
            if number % 60 == 59:
                jump = chance.choice([-HOUR, HOUR, 30 * 24 * HOUR])
                wall.offset += jump
                if jump > 0:
                    forward.append((time.monotonic(), jump))
        for wait in waits:
            assert wait.get(timeout=LIMIT).status == "completed"
    assert sorted(number for number, _ in runs) == list(range(600))
    for number, ran in runs:
        at, delay = submitted[number]
        jumped = sum(jump for when, jump in forward if at - 0.01 <= when <= ran)
        assert ran >= at + delay - jumped - 0.01
        assert ran <= at + delay + 10  # Here a look a tenth of a second stands for one a minute.
