"""The channel and the mailboxes: what is handed out, when, in which order, and to how many."""

import itertools
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pykka
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from actors.errors import CapacityReached
from actors.messages import Ping, Run, Submit
from actors.messaging.actor import Actor
from actors.messaging.channel import Channel
from actors.messaging.mailbox import Mailbox
from actors.messaging.reply import Reply
from tests.calling import run

#: Seconds after which a test gives up; nothing waits for so long unless it is broken.
LIMIT = 60.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Letter:
    """What pykka would put into a mailbox."""

    message: Any
    reply_to: pykka.Future[Any] | None = None


def mailbox_on(channel: Channel, stopped: threading.Event | None = None) -> Mailbox:
    mailbox = Mailbox()
    mailbox.open(stopped or threading.Event(), channel)
    return mailbox


def take_all(channel: Channel) -> list[str]:
    """Take what is due from the channel, as far as it is a Run, and return the ids."""
    with channel.changed:
        return [message.id for message in iter(channel.take, None) if isinstance(message, Run)]


def seconds_to_next(channel: Channel) -> float | None:
    with channel.changed:
        return channel.seconds_to_next()


# Order.


def test_messages_of_the_channel_come_in_the_order_they_were_sent() -> None:
    channel = Channel()
    mailbox = mailbox_on(channel)
    for name in "abc":
        channel.send(run(name))
    assert [mailbox.get().message for _ in "abc"] == [run("a"), run("b"), run("c")]


def test_messages_for_one_actor_come_in_the_order_they_were_put() -> None:
    mailbox = mailbox_on(Channel())
    for name in "abc":
        mailbox.put(Letter(name))
    assert [mailbox.get().message for _ in "abc"] == ["a", "b", "c"]


def test_an_actors_own_messages_come_before_those_of_the_channel() -> None:
    channel = Channel()
    mailbox = mailbox_on(channel)
    channel.send(run("job"))
    mailbox.put(Letter("own"))
    assert [mailbox.get().message for _ in range(2)] == ["own", run("job")]


def test_a_message_of_the_channel_goes_to_one_mailbox_and_is_answered_to_nobody() -> None:
    channel = Channel()
    first, second = mailbox_on(channel), mailbox_on(channel)
    channel.send(run("a"))
    channel.send(run("b"))
    envelopes = [first.get(), second.get()]
    assert [envelope.message for envelope in envelopes] == [run("a"), run("b")]
    assert [envelope.reply_to for envelope in envelopes] == [None, None]
    assert channel.seconds_to_next() != 0


def test_a_mailbox_without_a_shared_channel_hands_out_its_own_messages() -> None:
    mailbox = Mailbox()
    mailbox.open(threading.Event())
    mailbox.put(Letter("own"))
    assert mailbox.get().message == "own"


# Delay.


def test_a_delayed_message_is_not_handed_out_before_it_is_due() -> None:
    clock = Clock()
    channel = Channel(clock)
    channel.send(run("late"), delay=5.0)
    clock.now = 4.9
    assert channel.seconds_to_next() != 0
    assert take_all(channel) == []
    clock.now = 5.0
    assert channel.seconds_to_next() == 0
    assert take_all(channel) == ["late"]


def test_delayed_messages_come_in_the_order_in_which_they_fall_due() -> None:
    clock = Clock()
    channel = Channel(clock)
    for name, delay in (("c", 3.0), ("a", 1.0), ("d", 3.0), ("b", 2.0)):
        channel.send(run(name), delay)
    clock.now = 10.0
    assert take_all(channel) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("delay", [0.0, -1.0])
def test_a_delay_that_is_over_already_is_none(delay: float) -> None:
    channel = Channel(Clock())
    channel.send(run("now"), delay)
    assert take_all(channel) == ["now"]


def test_what_is_due_first_is_handed_out_first_with_and_without_a_delay() -> None:
    clock = Clock()
    channel = Channel(clock)
    channel.send(run("third"), delay=2.0)
    channel.send(run("first"), delay=-1.0)
    channel.send(run("second"))
    clock.now += 3.0
    channel.send(run("fourth"))
    assert take_all(channel) == ["first", "second", "third", "fourth"]


def test_a_message_that_is_not_due_holds_up_no_other() -> None:
    channel = Channel(Clock())
    channel.send(run("late"), delay=5.0)
    channel.send(run("now"))
    assert take_all(channel) == ["now"]


def test_the_time_to_the_next_message_is_how_long_a_receiver_may_sleep() -> None:
    clock = Clock()
    channel = Channel(clock)
    assert seconds_to_next(channel) is None
    channel.send(run("later"), delay=9.0)
    channel.send(run("late"), delay=5.0)
    assert seconds_to_next(channel) == 5.0
    clock.now = 4.0
    assert seconds_to_next(channel) == 1.0
    clock.now = 6.0
    assert seconds_to_next(channel) == 0.0
    assert take_all(channel) == ["late"]
    assert seconds_to_next(channel) == 3.0
    channel.send(run("now"))
    assert seconds_to_next(channel) == 0.0


def test_no_delay_is_longer_than_a_thread_can_wait() -> None:
    channel = Channel(Clock())
    channel.send(run("never"), delay=1e12)
    assert seconds_to_next(channel) == threading.TIMEOUT_MAX


# The end.


def test_a_closed_channel_hands_nothing_out_but_gives_back_what_is_queued() -> None:
    clock = Clock()
    channel = Channel(clock)
    messages = [run("now"), run("after"), run("late"), run("after, and late")]
    channel.send(messages[0])
    channel.send(messages[2], delay=1.0)
    channel.close()
    channel.send(messages[1])
    channel.send(messages[3], delay=1.0)
    clock.now = 10.0
    assert not channel.is_open
    assert seconds_to_next(channel) is None
    assert take_all(channel) == []
    assert channel.withdraw(lambda _: True) == messages


# What is taken back.


def test_a_message_that_is_withdrawn_is_handed_out_to_nobody_and_holds_up_no_other() -> None:
    clock = Clock()
    channel = Channel(clock)
    for name, delay in (("a", None), ("b", None), ("c", 1.0), ("d", 2.0)):
        channel.send(run(name), delay)
    wanted = [run("a"), run("c")]
    assert channel.withdraw(wanted.__contains__) == wanted
    assert seconds_to_next(channel) == 0.0
    assert take_all(channel) == ["b"]
    assert seconds_to_next(channel) == 2.0
    clock.now += 2.0
    assert take_all(channel) == ["d"]


def test_a_message_that_was_taken_cannot_be_withdrawn() -> None:
    channel = Channel(Clock())
    channel.send(run("a"))
    assert channel.holds(lambda message: message == run("a"))
    assert take_all(channel) == ["a"]
    assert not channel.holds(lambda message: message == run("a"))
    assert channel.withdraw(lambda message: message == run("a")) == []


def test_a_message_that_was_withdrawn_can_be_sent_again() -> None:
    channel = Channel(Clock())
    channel.send(run("a"))
    channel.send(run("b"))
    for message in channel.withdraw(lambda message: message == run("a")):
        channel.send(message)
    assert take_all(channel) == ["b", "a"]


def test_an_actors_own_messages_come_also_when_the_channel_is_closed() -> None:
    channel = Channel()
    mailbox = mailbox_on(channel)
    channel.close()
    mailbox.put(Letter("stop"))
    assert mailbox.get().message == "stop"


def test_an_ask_after_the_end_is_answered_at_once() -> None:
    stopped = threading.Event()
    mailbox = mailbox_on(Channel(), stopped)
    stopped.set()
    reply = Reply[None]()
    mailbox.put(Letter("too late", reply))
    with pytest.raises(pykka.ActorDeadError):
        reply.get(timeout=0)
    assert mailbox.empty()


def test_a_tell_after_the_end_is_dropped() -> None:
    stopped = threading.Event()
    mailbox = mailbox_on(Channel(), stopped)
    stopped.set()
    mailbox.put(Letter("too late"))
    assert mailbox.empty()


def test_what_came_before_the_end_is_still_handed_out() -> None:
    """Pykka's teardown answers it."""
    stopped = threading.Event()
    mailbox = mailbox_on(Channel(), stopped)
    mailbox.put(Letter("in time"))
    stopped.set()
    assert not mailbox.empty()
    assert mailbox.get().message == "in time"


def test_a_mailbox_is_empty_when_only_others_could_miss_a_message() -> None:
    channel = Channel()
    mailbox, sibling = mailbox_on(channel), mailbox_on(channel)
    channel.send(run("job"))
    sibling.put(Letter("stop"))
    assert mailbox.empty()
    assert not sibling.empty()
    mailbox.put(Letter("own"))
    assert not mailbox.empty()


# Any sequence of events, compared with a model of what is queued.


class Receivers(RuleBasedStateMachine):
    """Three mailboxes on one channel; `get` is only called when there is something, so it never waits."""

    receiver = st.integers(0, 2)

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.channel = Channel(self.clock)
        self.stopped = [threading.Event() for _ in range(3)]
        self.mailboxes = [mailbox_on(self.channel, stopped) for stopped in self.stopped]
        self.names = map(str, itertools.count())
        self.immediate: list[str] = []
        self.delayed: list[tuple[float, int, str]] = []
        self.own: list[deque[str]] = [deque() for _ in range(3)]

    @rule()
    def send(self) -> None:
        name = next(self.names)
        self.channel.send(run(name))
        self.immediate.append(name)

    @rule(delay=st.integers(1, 5))
    def send_delayed(self, delay: int) -> None:
        name = next(self.names)
        self.channel.send(run(name), delay)
        self.delayed.append((self.clock.now + delay, int(name), name))

    @rule(number=st.integers(0, 1))
    def withdraw(self, number: int) -> None:
        """Withdraw about every second message that is queued."""
        wanted = {name for name in self.queued() if int(name) % 2 == number % 2}
        messages = self.channel.withdraw(lambda message: isinstance(message, Run) and message.id in wanted)
        assert {message.id for message in messages if isinstance(message, Run)} == wanted
        self.immediate = [name for name in self.immediate if name not in wanted]
        self.delayed = [item for item in self.delayed if item[2] not in wanted]

    @rule(halves=st.integers(1, 10))
    def time_passes(self, halves: int) -> None:
        self.clock.now += halves / 2

    @rule(to=receiver)
    def tell(self, to: int) -> None:
        self.put(to, next(self.names))

    @rule(to=receiver)
    def tell_to_stop(self, to: int) -> None:
        self.put(to, "stop")

    @rule()
    def look(self) -> None:
        assert (self.channel.seconds_to_next() == 0) == self.is_due()

    @rule(by=receiver)
    def take(self, by: int) -> None:
        if self.own[by]:
            message = self.mailboxes[by].get().message
            assert message == self.own[by].popleft()
            if message == "stop":
                self.tear_down(by)
        elif self.is_due() and not self.stopped[by].is_set():
            self.expect_from_the_channel(self.mailboxes[by].get().message)

    @invariant()
    def a_receiver_would_sleep_until_the_next_message_is_due(self) -> None:
        dues = [self.clock.now] * len(self.immediate) + [due for due, _, _ in self.delayed]
        expected = max(0.0, min(dues) - self.clock.now) if dues else None
        assert seconds_to_next(self.channel) == expected

    @invariant()
    def a_mailbox_is_empty_when_nothing_was_put_for_it_alone(self) -> None:
        assert [mailbox.empty() for mailbox in self.mailboxes] == [not own for own in self.own]

    def teardown(self) -> None:
        self.clock.now += 10
        assert sorted(take_all(self.channel)) == sorted(self.queued())

    def queued(self) -> list[str]:
        return self.immediate + [name for _, _, name in self.delayed]

    def put(self, to: int, message: str) -> None:
        self.mailboxes[to].put(Letter(message))
        if not self.stopped[to].is_set():
            self.own[to].append(message)

    def is_due(self) -> bool:
        return bool(self.immediate) or any(due <= self.clock.now for due, _, _ in self.delayed)

    def expect_from_the_channel(self, message: Any) -> None:
        """Each of the two kinds keeps its order; how they mix depends on who looked when."""
        if message.id in self.immediate:
            assert message.id == self.immediate.pop(0)
        else:
            first = min(self.delayed)
            self.delayed.remove(first)
            assert message.id == first[2]
            assert first[0] <= self.clock.now

    def tear_down(self, mailbox: int) -> None:
        """Do as pykka does after a stop."""
        self.stopped[mailbox].set()
        while not self.mailboxes[mailbox].empty():
            assert self.mailboxes[mailbox].get().message == self.own[mailbox].popleft()


UNHURRIED = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_whatever_happens_each_message_is_handed_out_once_and_never_early() -> None:
    run_state_machine_as_test(Receivers, settings=UNHURRIED)


# Real actors on one channel.


class Receiver(Actor):
    """Passes the id of each job on to a function."""

    #: So that a test that fails can end.
    use_daemon_thread = True

    def __init__(self, channel: Channel, receive: Callable[[str], None]) -> None:
        super().__init__(channel)
        self._receive = receive

    def on_receive(self, message: Any) -> Any:
        if not isinstance(message, Run):
            return super().on_receive(message)
        self._receive(message.id)
        return None


class Busy:
    """A job that takes as long as the test wants, and notes the others."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.others: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __call__(self, name: str) -> None:
        if name == "long":
            self.begun.set()
            self.may_end.wait()
        else:
            self.others.put(name)


@pytest.fixture
def busy() -> Iterator[Busy]:
    busy = Busy()
    yield busy
    busy.may_end.set()


@pytest.fixture(autouse=True)
def _no_actor_is_left() -> Iterator[None]:
    yield
    pykka.ActorRegistry.stop_all(timeout=LIMIT)


def send_from_many_threads(channel: Channel, messages: list[Run]) -> None:
    """Send from four threads, every fifth message at once and the others up to 4 ms later."""

    def send(first: int) -> None:
        for number in range(first, len(messages), 4):
            channel.send(messages[number], delay=number % 5 / 1000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(4)))


def assert_each_received_once(received: queue.SimpleQueue[str], messages: list[Run]) -> None:
    names = [received.get(timeout=LIMIT) for _ in messages]
    pykka.ActorRegistry.stop_all(timeout=LIMIT)
    assert sorted(names) == sorted(message.id for message in messages)
    assert received.empty()


def test_many_receivers_get_each_message_once() -> None:
    channel = Channel()
    received: queue.SimpleQueue[str] = queue.SimpleQueue()
    for _ in range(8):
        Receiver.start(channel, received.put)
    messages = [run(str(number)) for number in range(5000)]
    send_from_many_threads(channel, messages)
    assert_each_received_once(received, messages)


def test_a_receiver_that_stops_loses_no_message_of_the_others() -> None:
    channel = Channel()
    received: queue.SimpleQueue[str] = queue.SimpleQueue()
    refs = [Receiver.start(channel, received.put) for _ in range(4)]
    messages = [run(str(number)) for number in range(4000)]
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send_from_many_threads, channel, messages)
        for ref in refs[1:]:
            assert ref.stop(timeout=LIMIT)
        sending.result(LIMIT)
    assert_each_received_once(received, messages)


@pytest.mark.usefixtures("_threads_switch_often")
def test_a_message_is_either_received_or_withdrawn_however_many_try() -> None:
    channel = Channel()
    received: queue.SimpleQueue[str] = queue.SimpleQueue()
    for _ in range(4):
        Receiver.start(channel, received.put)
    withdrawn: list[str] = []
    names = [str(number) for number in range(2000)]
    for name in names:
        channel.send(run(name))
        withdrawn += [item.id for item in channel.withdraw(lambda _: True) if isinstance(item, Run)]
    others = [received.get(timeout=LIMIT) for _ in range(len(names) - len(withdrawn))]
    pykka.ActorRegistry.stop_all(timeout=LIMIT)
    assert sorted(withdrawn + others) == sorted(names)
    assert received.empty()


def test_a_stop_overtakes_queued_jobs(busy: Busy) -> None:
    channel = Channel()
    ref = Receiver.start(channel, busy)
    channel.send(run("long"))
    assert busy.begun.wait(LIMIT)
    for name in "abc":
        channel.send(run(name))
    stopped = ref.stop(block=False)
    busy.may_end.set()
    assert stopped.get(timeout=LIMIT)
    assert busy.others.empty()
    assert take_all(channel) == ["a", "b", "c"]


class WatchedClock:
    """Tells who goes to sleep: a receiver that finds nothing due reads the clock, and then waits at once."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.readers: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()

    def __call__(self) -> float:
        self.readers.put(threading.current_thread())
        return time.monotonic() + self.ahead

    def wait_until_asleep(self, count: int) -> None:
        sleepers: set[threading.Thread] = set()
        while len(sleepers) < count:
            sleepers |= {self.readers.get(timeout=LIMIT)} - {threading.current_thread()}


def start_asleep(channel: Channel, clock: WatchedClock, busy: Busy, count: int) -> list[pykka.ActorRef[Any]]:
    """Start receivers, and return when they sleep until a message falls due in 1000 seconds."""
    channel.send(run("late"), delay=1000.0)
    refs = [Receiver.start(channel, busy) for _ in range(count)]
    clock.wait_until_asleep(count)
    return refs


@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_a_message_wakes_an_idle_receiver_while_another_is_busy(busy: Busy, delay: float) -> None:
    clock = WatchedClock()
    channel = Channel(clock)
    channel.send(run("long"))
    Receiver.start(channel, busy)
    assert busy.begun.wait(LIMIT)
    start_asleep(channel, clock, busy, 1)
    channel.send(run("short"), delay)
    assert busy.others.get(timeout=LIMIT) == "short"


@pytest.mark.parametrize("first", [0, 1])
def test_a_delayed_message_is_received_though_who_waited_for_it_got_busy(busy: Busy, first: int) -> None:
    clock = WatchedClock()
    channel = Channel(clock)
    refs = start_asleep(channel, clock, busy, 2)
    channel.send(run("soon"), delay=0.05)
    refs[first].tell(run("long"))
    assert busy.begun.wait(LIMIT)
    assert busy.others.get(timeout=LIMIT) == "soon"


def test_a_receiver_that_leaves_a_message_behind_wakes_the_next(busy: Busy) -> None:
    clock = WatchedClock()
    channel = Channel(clock)
    start_asleep(channel, clock, busy, 2)
    with channel.changed:
        clock.ahead = 1000.0
    channel.send(run("long"))
    assert busy.others.get(timeout=LIMIT) == "late"


def test_a_message_for_one_actor_wakes_that_one_among_many() -> None:
    channel = Channel()
    refs = [Receiver.start(channel, queue.SimpleQueue[str]().put) for _ in range(8)]
    threads = {ref.ask(Ping(), timeout=LIMIT) for ref in refs}
    assert len(threads) == 8


# The stop storm.

STORMS = 10_000
SENDERS = 4


class Echo(Actor):
    use_daemon_thread = True

    def on_receive(self, message: Any) -> Any:
        return message if message == "hello" else super().on_receive(message)


def answer(reply: pykka.Future[Any]) -> Any:
    """Return the value, or the error if it is that the actor has stopped; raise when there is neither."""
    try:
        return reply.get(timeout=LIMIT)
    except pykka.ActorDeadError as error:
        return type(error)


@pytest.fixture
def _threads_switch_often() -> Iterator[None]:
    """Let a thread be interrupted between any two steps; Python's own 5 ms are longer than a storm."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("_threads_switch_often")
def test_every_ask_is_answered_however_many_ask_and_stop_at_the_same_time() -> None:
    channel = Channel()
    refs: list[pykka.ActorRef[Echo]] = []
    gate = threading.Barrier(SENDERS, lambda: refs.append(Echo.start(channel)), timeout=LIMIT)

    def ask_and_stop(_sender: int) -> set[Any]:
        answers: set[Any] = set()
        for _ in range(STORMS):
            gate.wait()
            ref = refs[-1]
            asked = [ref.ask("hello", block=False)]
            stopping = ref.stop(block=False)
            asked.append(ref.ask("hello", block=False))
            answers.update(answer(reply) for reply in asked)
            stopping.get(timeout=LIMIT)
        return answers

    with ThreadPoolExecutor(SENDERS) as pool:
        answers = set[Any]().union(*pool.map(ask_and_stop, range(SENDERS)))
    assert answers == {"hello", pykka.ActorDeadError}
    assert len(refs) == STORMS
    assert not any(ref.is_alive() for ref in refs)
    assert_no_thread_is_left("Echo-")


def assert_no_thread_is_left(prefix: str) -> None:
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]
    for thread in threads:
        thread.join(LIMIT)
    assert not any(thread.is_alive() for thread in threads)


# What an actor gathers.


def test_what_is_due_of_the_reminders_is_collected_behind_an_actors_own_messages() -> None:
    clock = Clock()
    channel = Channel(clock)
    mailbox = mailbox_on(channel)
    mailbox.put(Letter("own"))
    mailbox.remind(Ping(), 1.0)
    mailbox.remind(run("later"), 3.0)
    mailbox.collect()
    assert len(mailbox.own) == 1
    clock.now = 2.0
    mailbox.collect()
    mailbox.put(Letter("last"))
    assert [mailbox.get().message for _ in range(3)] == ["own", Ping(), "last"]
    assert mailbox.empty()


class Wait:
    """Stands for a wait on the channel, during which some letters are put; notes for which it is woken."""

    def __init__(self, channel: Channel, mailbox: Mailbox, *letters: Letter) -> None:
        self.channel, self.mailbox, self.letters = channel, mailbox, letters
        self.woken: list[Any] = []
        channel.changed.wait = self  # type: ignore[method-assign, assignment]
        channel.changed.notify_all = lambda: self.woken.append(mailbox.own[-1].message)  # type: ignore[method-assign]

    def __call__(self, _seconds: float | None) -> bool:
        self.channel.lock.release()
        for letter in self.letters:
            self.mailbox.put(letter)
        self.channel.lock.acquire()
        return bool(self.woken)


def test_a_wait_for_an_ask_ends_with_one_and_not_with_what_is_only_told() -> None:
    channel = Channel()
    mailbox = mailbox_on(channel)
    wait = Wait(channel, mailbox, Letter("told"), Letter("asked", Reply[None]()))
    assert mailbox.wait_for_ask(1.0)
    assert wait.woken == ["asked"]


def test_a_wait_for_an_ask_that_ends_by_itself_says_whether_there_is_anything() -> None:
    channel = Channel()
    mailbox = mailbox_on(channel)
    assert not mailbox.wait_for_ask(0.01)
    assert Wait(channel, mailbox, Letter("told")).woken == []
    assert mailbox.wait_for_ask(1.0)


def test_after_a_wait_for_an_ask_what_is_told_wakes_an_actor_again() -> None:
    channel = Channel()
    mailbox = mailbox_on(channel)
    mailbox.wait_for_ask(0)
    wait = Wait(channel, mailbox, Letter("told"))
    assert mailbox.get().message == "told"
    assert wait.woken == ["told"]


# What nobody waits for, and what is too much.


def test_a_message_whose_asker_has_given_up_is_not_handed_out() -> None:
    mailbox = mailbox_on(Channel())
    given_up, wanted = Reply[None](), Reply[None]()
    mailbox.put(Letter("given up", given_up))
    mailbox.put(Letter("wanted", wanted))
    given_up.give_up("too late")
    assert mailbox.get().message == "wanted"
    assert mailbox.empty()


def test_after_the_end_also_what_was_given_up_is_handed_out_so_that_the_teardown_never_waits() -> None:
    stopped = threading.Event()
    mailbox = mailbox_on(Channel(), stopped)
    given_up = Reply[None]()
    mailbox.put(Letter("given up", given_up))
    given_up.give_up("too late")
    stopped.set()
    assert mailbox.get().message == "given up"


def test_submits_that_wait_are_bounded_in_bytes_and_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.messaging.mailbox.MOST_BYTES", 10_000)
    mailbox = mailbox_on(Channel())
    submit = Submit("email", "x" * 2000)
    for _ in range(3):
        mailbox.put(Letter(submit))
    with pytest.raises(CapacityReached, match="wait to be stored"):
        mailbox.put(Letter(submit, Reply[None]()))
    mailbox.put(Letter(Ping()))
    mailbox.get()
    mailbox.put(Letter(submit))
    for _ in range(4):
        mailbox.get()
    assert mailbox._bytes == 0
    for _ in range(3):
        mailbox.put(Letter(submit))
