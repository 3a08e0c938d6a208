"""The answer to an ask: it can be awaited on an asyncio loop, and an actor can hold it back.

Why no asker misses its answer: an asker registers (a lock in `_blocked`, a waiter in `_awaiting`) under the
reply's lock and only if it has seen there that the reply is not settled; `settle` sets the outcome under the
same lock. So an asker is either in the list that `settle` walks through afterwards, or has seen the outcome.

Giving up and beginning are one atomic step on the reply, under the same lock: whichever comes first wins.
What the asker has given up is not begun; of what has begun, the asker that gives up knows only that its
outcome is unknown.

Who wakes whom: the actor's thread settles, releases the blocked threads itself, and returns the waiters,
which belong to event loops; `wake` passes them on with one `call_soon_threadsafe` for each loop. An asker
that timed out stays in the list, and waking it does nothing.
"""

import asyncio
import contextlib
import copy
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any, TypeVar

import pykka

T = TypeVar("T")
Loop = asyncio.AbstractEventLoop
Waiter = asyncio.Future[None]
ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class Unanswered(pykka.Timeout):
    """The asker has given up: the message was not begun and never will be."""


class OutcomeUnknown(Unanswered):
    """The asker has given up, but the message had begun: what it does may still happen."""


class Reply(pykka.Future[T]):
    """A pykka future whose `await` leaves the event loop free; pykka's own blocks it."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._outcome: tuple[Any, BaseException | None] | None = None
        self._blocked: list[threading.Lock] = []
        self._awaiting: list[tuple[Loop, Waiter]] = []
        self._is_derived = False
        self._has_begun = False
        #: Whether no asker is waiting for the answer any longer.
        self.is_given_up = False

    @property
    def is_settled(self) -> bool:
        """Whether the answer is there."""
        return self._outcome is not None

    def begin(self) -> bool:
        """Say, in the actor's thread, that the message is begun; return False if the asker has given up."""
        with self._lock:
            self._has_begun = not self.is_given_up
        return self._has_begun

    def give_up(self, reason: str) -> Unanswered:
        """Have the message not begun if it is not yet; return the error that tells the asker which it is."""
        with self._lock:
            self.is_given_up = True
            return (OutcomeUnknown if self._has_begun else Unanswered)(reason)

    def get(self, *, timeout: float | None = None) -> Any:
        """Block until the answer is there; raise it if it is an exception.

        Raises pykka.Timeout after `timeout` seconds.
        """
        if self._is_derived:
            return super().get(timeout=timeout)
        if self._outcome is None:
            self._block(timeout)
        return self._answer()

    def __await__(self) -> Generator[Any, None, T]:
        return self.within(None).__await__()

    async def within(self, seconds: float | None) -> T:
        """Await the answer, for at most `seconds`; then, and if the task is cancelled, give up.

        Raises Unanswered or OutcomeUnknown, or TypeError for a reply that pykka derives only when `get` is
        called.
        """
        if self._is_derived:
            raise TypeError("a derived reply, as of stop() or map(), cannot be awaited; call get()")
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        with self._lock:
            if self._outcome is None:
                self._awaiting.append((loop, waiter))
        if self._outcome is None:
            timer = None if seconds is None else loop.call_later(seconds, _wake, [waiter])
            try:
                await waiter
            except asyncio.CancelledError:
                self.give_up("cancelled")
                raise
            finally:
                if timer is not None:
                    timer.cancel()
        if self._outcome is None:
            raise self.give_up(f"no answer within {seconds} seconds")
        answer: T = self._answer()
        return answer

    def set(self, value: Any = None) -> None:
        """Settle with `value`; with a Held one, when that is settled."""
        if isinstance(value, Held):
            value.bind(self)
        else:
            wake(self.settle(value, None))

    def set_exception(self, exc_info: ExcInfo | None = None) -> None:
        """Settle with the exception being handled, or the one in `exc_info`."""
        wake(self.settle(None, (exc_info or sys.exc_info())[1]))

    def set_get_hook(self, func: Callable[[float | None], T]) -> None:
        """Derive the answer from another future's, as pykka's `map` and `stop` do."""
        self._is_derived = True
        super().set_get_hook(func)

    def settle(self, value: Any, error: BaseException | None) -> list[tuple[Loop, Waiter]]:
        """Give the answer, once; return the waiters to wake for it."""
        with self._lock:
            if self._outcome is not None:
                raise RuntimeError("already answered")
            self._outcome = (value, error)
        for settled in self._blocked:
            settled.release()
        return self._awaiting

    def _block(self, timeout: float | None) -> None:
        settled = threading.Lock()
        settled.acquire()  # settle() releases it
        with self._lock:
            if self._outcome is not None:
                return
            self._blocked.append(settled)
        limit = -1 if timeout is None else min(max(0.0, timeout), threading.TIMEOUT_MAX)
        if not settled.acquire(timeout=limit):
            raise pykka.Timeout(f"no answer within {timeout} seconds")

    def _answer(self) -> Any:
        assert self._outcome is not None
        value, error = self._outcome
        if error is not None:
            raise _fresh(error)
        return value


class Held:
    """What a handler returns to answer later. Only the actor's own thread may touch it."""

    __slots__ = ("_outcome", "_reply")

    def __init__(self) -> None:
        self._reply: Reply[Any] | None = None
        self._outcome: tuple[Any, BaseException | None] | None = None

    @property
    def is_given_up(self) -> bool:
        """Whether no asker is waiting for the answer any longer."""
        return self._reply is not None and self._reply.is_given_up

    def bind(self, reply: Reply[Any]) -> None:
        """Take the asker's reply; pykka passes it after the handler has returned."""
        self._reply = reply
        if self._outcome is not None:
            wake(reply.settle(*self._outcome))

    def settle(self, value: Any, error: BaseException | None = None) -> list[tuple[Loop, Waiter]]:
        """Give the answer; return the waiters to wake for it: none if the message was only told."""
        self._outcome = (value, error)
        return [] if self._reply is None else self._reply.settle(value, error)


def _fresh(error: BaseException) -> BaseException:
    """Return a copy to raise: each raise adds to an error's traceback, and threads must not share one."""
    try:
        fresh = copy.copy(error)
    except Exception:  # noqa: BLE001 - not every error can be made again
        return error
    fresh.__cause__, fresh.__traceback__ = error.__cause__, None
    return fresh


def wake(waiting: Iterable[tuple[Loop, Waiter]]) -> None:
    """Wake the waiters of settled replies: one system call for each loop, not for each reply."""
    by_loop: dict[Loop, list[Waiter]] = {}
    for loop, waiter in waiting:
        by_loop.setdefault(loop, []).append(waiter)
    for loop, waiters in by_loop.items():
        with contextlib.suppress(RuntimeError):  # The loop was closed under the asker.
            loop.call_soon_threadsafe(_wake, waiters)


def _wake(waiters: list[Waiter]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
