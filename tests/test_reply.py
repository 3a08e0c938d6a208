"""The answer to an ask: how it is given, held back, waited for by threads and awaited on loops."""

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from unittest import mock

import pykka
import pytest

from actors.messages import Ping
from actors.messaging.actor import Actor
from actors.messaging.reply import Held, OutcomeUnknown, Reply, Unanswered, wake

T = TypeVar("T")

#: Seconds after which a test gives up; nothing waits for so long unless it is broken.
LIMIT = 60.0


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run on a loop of its own, and give up in the end."""

    async def limited() -> T:
        return await asyncio.wait_for(main, LIMIT)

    return asyncio.run(limited())


def settled(value: Any) -> Reply[Any]:
    reply = Reply[Any]()
    reply.set(value)
    return reply


def failed(error: BaseException) -> Reply[Any]:
    reply = Reply[Any]()
    reply.set_exception((type(error), error, None))
    return reply


# Blocking.


@pytest.mark.parametrize("value", ["answer", None])
def test_the_answer_can_be_got_again_and_again(value: str | None) -> None:
    reply = settled(value)
    assert [reply.get(), reply.get(timeout=0)] == [value, value]


def test_everyone_who_blocks_gets_the_answer() -> None:
    reply = Reply[str]()
    gate = threading.Barrier(9)

    def wait() -> str:
        gate.wait(LIMIT)
        answer: str = reply.get(timeout=LIMIT)
        return answer

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(wait) for _ in range(8)]
        gate.wait(LIMIT)
        reply.set("answer")
        assert {answer.result(LIMIT) for answer in answers} == {"answer"}


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_whoever_blocks_for_too_long_gets_a_timeout_and_may_ask_again(timeout: float) -> None:
    reply = Reply[str]()
    with pytest.raises(pykka.Timeout):
        reply.get(timeout=timeout)
    reply.set("answer")
    assert reply.get(timeout=timeout) == "answer"


def test_an_exception_is_raised_where_the_answer_is_got() -> None:
    error = LookupError("nothing there")
    reply = failed(error)
    for _ in range(2):
        with pytest.raises(LookupError) as raised:
            reply.get()
        assert raised.value is not error  # Each raise adds to the traceback of what it raises.
        assert raised.value.args == error.args


def test_the_exception_that_is_being_handled_can_be_the_answer() -> None:
    reply = Reply[None]()
    try:
        int("one")
    except ValueError:
        reply.set_exception()
    with pytest.raises(ValueError, match="one"):
        reply.get()


@pytest.mark.parametrize("reply", [settled("first"), failed(LookupError())])
def test_a_second_answer_is_refused(reply: Reply[Any]) -> None:
    with pytest.raises(RuntimeError, match="already answered"):
        reply.set("second")
    with pytest.raises(RuntimeError, match="already answered"):
        reply.set_exception((ValueError, ValueError(), None))


@pytest.fixture
def _threads_switch_often() -> Iterator[None]:
    """Let a thread be interrupted between any two steps; Python's own 5 ms are longer than a race."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("_threads_switch_often")
def test_of_many_answers_at_the_same_time_only_one_is_given() -> None:
    replies = [Reply[int]() for _ in range(1000)]
    gate = threading.Barrier(4, timeout=LIMIT)

    def settle_all(value: int) -> list[bool]:
        return [settle(reply, value) for reply in replies]

    def settle(reply: Reply[int], value: int) -> bool:
        gate.wait()
        try:
            reply.set(value)
        except RuntimeError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        is_given = list(pool.map(settle_all, range(4)))
    assert [list(given).count(True) for given in zip(*is_given, strict=True)] == [1] * 1000


@pytest.mark.usefixtures("_threads_switch_often")
def test_an_answer_that_races_with_the_block_is_not_missed() -> None:
    replies = [Reply[str]() for _ in range(10_000)]
    gate = threading.Barrier(2, timeout=LIMIT)

    def settle_all() -> None:
        for reply in replies:
            gate.wait()
            reply.set("answer")

    with ThreadPoolExecutor(1) as pool:
        pool.submit(settle_all)
        for reply in replies:
            gate.wait()
            assert reply.get(timeout=LIMIT) == "answer"


# Awaiting.


def test_an_answer_can_be_awaited() -> None:
    async def main() -> Any:
        return await settled("answer")

    assert run(main()) == "answer"


def test_an_exception_is_raised_where_the_answer_is_awaited() -> None:
    async def main() -> None:
        await failed(LookupError("nothing there"))

    with pytest.raises(LookupError, match="nothing there"):
        run(main())


def test_awaiting_leaves_the_loop_free() -> None:
    reply = Reply[bool]()
    has_progressed = threading.Event()

    async def progress() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        has_progressed.set()

    async def main() -> bool:
        other = asyncio.create_task(progress())
        answer = await reply
        await other
        return answer

    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: reply.set(has_progressed.wait(LIMIT)))
        assert run(main())


def test_whoever_awaits_for_too_long_gets_a_timeout_and_may_ask_again() -> None:
    reply = Reply[str]()

    async def main() -> str:
        with pytest.raises(pykka.Timeout):
            await reply.within(0.01)
        reply.set("answer")
        return await reply.within(0.01)

    assert run(main()) == "answer"


def test_an_answer_in_time_is_awaited_no_longer() -> None:
    reply = Reply[str]()

    async def main() -> str:
        asyncio.get_running_loop().call_soon(reply.set, "answer")
        return await reply.within(10 * LIMIT)

    assert run(main()) == "answer"


def test_everyone_who_awaits_gets_the_answer() -> None:
    reply = Reply[str]()

    async def main() -> list[str]:
        tasks = [asyncio.ensure_future(reply) for _ in range(1000)]
        await asyncio.sleep(0)
        await asyncio.to_thread(reply.set, "answer")
        return await asyncio.gather(*tasks)

    assert run(main()) == ["answer"] * 1000


def test_those_who_await_on_other_loops_and_those_who_block_get_the_answer() -> None:
    reply = Reply[str]()
    gate = threading.Barrier(5)

    async def awaiting() -> str:
        gate.wait(LIMIT)
        return await reply

    def blocking() -> str:
        gate.wait(LIMIT)
        answer: str = reply.get(timeout=LIMIT)
        return answer

    def on_a_loop() -> str:
        return run(awaiting())

    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(wait) for wait in (on_a_loop, on_a_loop, blocking, blocking)]
        gate.wait(LIMIT)
        reply.set("answer")
        assert [answer.result(LIMIT) for answer in answers] == ["answer"] * 4


@pytest.mark.usefixtures("_threads_switch_often")
def test_an_answer_that_races_with_the_await_is_not_missed() -> None:
    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            for number in range(2000):
                reply = Reply[int]()
                pool.submit(reply.set, number)
                assert await reply == number

    run(main())


def test_whoever_awaits_no_longer_harms_nobody() -> None:
    reply = Reply[str]()

    async def main() -> str:
        cancelled, patient = (asyncio.ensure_future(reply) for _ in range(2))
        await asyncio.sleep(0)
        cancelled.cancel()
        reply.set("answer")
        return await patient

    assert run(main()) == "answer"


def test_a_loop_that_was_closed_harms_neither_who_settles_nor_who_awaits_elsewhere() -> None:
    reply = Reply[str]()
    with pytest.raises(pykka.Timeout):
        run(reply.within(0))

    async def main() -> str:
        awaiting = asyncio.ensure_future(reply)
        await asyncio.sleep(0)
        reply.set("answer")
        return await awaiting

    assert run(main()) == "answer"


def test_many_answers_wake_a_loop_once() -> None:
    replies = [Reply[int]() for _ in range(100)]

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        tasks = [asyncio.ensure_future(reply) for reply in replies]
        await asyncio.sleep(0)
        waiting = [waiter for reply in replies for waiter in reply.settle(1, None)]
        with mock.patch.object(loop, "call_soon_threadsafe", wraps=loop.call_soon_threadsafe) as wakening:
            wake(waiting)
        assert wakening.call_count == 1
        return await asyncio.gather(*tasks)

    assert run(main()) == [1] * 100


# Held back.


def test_a_held_answer_is_given_when_it_is_settled() -> None:
    reply, held = Reply[str](), Held()
    reply.set(held)
    with pytest.raises(pykka.Timeout):
        reply.get(timeout=0)
    held.settle("answer")
    assert reply.get(timeout=0) == "answer"


def test_an_answer_that_was_settled_before_anyone_is_known_to_have_asked_is_given_then() -> None:
    reply, held = Reply[str](), Held()
    held.settle("answer")
    reply.set(held)
    assert reply.get(timeout=0) == "answer"


@pytest.mark.parametrize("is_settled_first", [True, False])
def test_a_held_answer_can_be_an_exception(*, is_settled_first: bool) -> None:
    reply, held = Reply[None](), Held()
    error = LookupError("nothing there")
    steps: list[Callable[[], Any]] = [lambda: reply.set(held), lambda: held.settle(None, error)]
    for step in reversed(steps) if is_settled_first else steps:
        step()
    with pytest.raises(LookupError, match="nothing there"):
        reply.get(timeout=0)


@pytest.mark.parametrize("is_settled_first", [True, False])
def test_whoever_awaits_a_held_answer_is_woken(*, is_settled_first: bool) -> None:
    reply, held = Reply[str](), Held()

    async def main() -> str:
        awaiting = asyncio.ensure_future(reply)
        await asyncio.sleep(0)
        if is_settled_first:
            assert held.settle("answer") == []
            reply.set(held)
        else:
            reply.set(held)
            wake(held.settle("answer"))
        return await awaiting

    assert run(main()) == "answer"


def test_a_held_answer_is_given_once() -> None:
    reply, held = Reply[str](), Held()
    reply.set(held)
    held.settle("first")
    with pytest.raises(RuntimeError, match="already answered"):
        held.settle("second")
    assert reply.get() == "first"


def test_a_held_answer_for_which_nobody_asked_wakes_nobody() -> None:
    assert Held().settle("answer") == []


# From real actors.


class Holder(Actor):
    """Holds every answer back until it is told to give them."""

    #: So that a test that fails can end.
    use_daemon_thread = True

    def __init__(self) -> None:
        super().__init__()
        self._held: list[Held] = []

    def on_receive(self, message: Any) -> Any:
        match message:
            case "hold":
                self._held.append(Held())
                return self._held[-1]
            case "give":
                for held in self._held:
                    wake(held.settle("answer"))
                return None
            case _:
                return super().on_receive(message)


@pytest.fixture
def holder() -> Iterator[pykka.ActorRef[Holder]]:
    ref = Holder.start()
    yield ref
    ref.stop(timeout=LIMIT)


def test_an_actor_can_answer_later(holder: pykka.ActorRef[Holder]) -> None:
    replies = [holder.ask("hold", block=False) for _ in range(3)]
    holder.tell("hold")
    holder.ask(Ping(), timeout=LIMIT)
    with pytest.raises(pykka.Timeout):
        replies[0].get(timeout=0)
    holder.tell("give")
    assert [reply.get(timeout=LIMIT) for reply in replies] == ["answer"] * 3


def test_an_actor_answers_those_who_await(holder: pykka.ActorRef[Holder]) -> None:
    async def main() -> list[Any]:
        asking = [asyncio.ensure_future(holder.ask("hold", block=False)) for _ in range(100)]
        await asyncio.sleep(0)
        holder.tell("give")
        return await asyncio.gather(*asking)

    assert run(main()) == ["answer"] * 100


def test_a_stop_can_be_waited_for_later(holder: pykka.ActorRef[Holder]) -> None:
    assert holder.stop(block=False).get(timeout=LIMIT) is True
    assert holder.stop(block=False).get(timeout=LIMIT) is False


def test_an_answer_can_be_derived_from_another() -> None:
    reply = Reply[int]()
    derived = reply.map(lambda value: value + 1)
    with pytest.raises(pykka.Timeout):
        derived.get(timeout=0)
    reply.set(1)
    assert derived.get(timeout=0) == 2


def test_a_derived_reply_says_that_it_cannot_be_awaited() -> None:
    async def wait() -> None:
        await Reply[int]().map(str)

    with pytest.raises(TypeError, match="cannot be awaited; call get"):
        asyncio.run(wait())


@pytest.mark.parametrize("timeout", [0, -1, -0.5])
def test_no_time_is_no_wait(timeout: float) -> None:
    with pytest.raises(pykka.Timeout):
        Reply[int]().get(timeout=timeout)


# Giving up.


def test_what_was_given_up_before_it_began_is_not_begun() -> None:
    reply = Reply[None]()
    assert type(reply.give_up("too late")) is Unanswered
    assert not reply.begin()


def test_of_what_has_begun_the_outcome_is_unknown_to_an_asker_that_gives_up() -> None:
    reply = Reply[None]()
    assert reply.begin()
    assert type(reply.give_up("too late")) is OutcomeUnknown


@pytest.mark.usefixtures("_threads_switch_often")
def test_giving_up_and_beginning_agree_on_which_came_first() -> None:
    gate = threading.Barrier(2)

    def begin(reply: Reply[None]) -> bool:
        gate.wait(LIMIT)
        return reply.begin()

    def give_up(reply: Reply[None]) -> Unanswered:
        gate.wait(LIMIT)
        return reply.give_up("too late")

    with ThreadPoolExecutor(2) as threads:
        for _ in range(2000):
            reply = Reply[None]()
            begun, given_up = threads.submit(begin, reply), threads.submit(give_up, reply)
            assert begun.result() is isinstance(given_up.result(), OutcomeUnknown)


def test_an_await_that_ends_without_an_answer_gives_up() -> None:
    reply = Reply[None]()

    async def main() -> None:
        with pytest.raises(Unanswered):
            await reply.within(0.01)

    run(main())
    assert not reply.begin()


def test_an_await_that_is_cancelled_gives_up() -> None:
    reply = Reply[None]()

    async def main() -> None:
        task = asyncio.ensure_future(reply.within(None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert not reply.begin()


def test_a_get_that_times_out_can_be_asked_again() -> None:
    reply = Reply[int]()
    with pytest.raises(pykka.Timeout):
        reply.get(timeout=0)
    assert reply.begin()
    reply.set(5)
    assert reply.get(timeout=0) == 5
