"""The answer to an ask: it can be awaited on an asyncio loop, and an actor can hold it back."""

import asyncio
import sys
import threading
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, TypeVar

import pykka

T = TypeVar("T")
ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class Reply(pykka.Future[T]):
    """A pykka future whose `await` leaves the event loop free; pykka's own blocks it."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._outcome: tuple[Any, BaseException | None] | None = None
        self._watchers: list[Callable[[], object]] = []
        self._is_derived = False

    def get(self, *, timeout: float | None = None) -> Any:
        """Block until the answer is there; raise it if it is an exception.

        Raises pykka.Timeout after `timeout` seconds.
        """
        if self._is_derived:
            return super().get(timeout=timeout)
        if self._outcome is None:
            settled = threading.Event()
            self._watch(settled.set)
            if not settled.wait(timeout):
                raise pykka.Timeout(f"{timeout} seconds")
        return self._answer()

    def __await__(self) -> Generator[Any, None, T]:
        if self._outcome is None:
            loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()
            self._watch(lambda: _wake(loop, waiter))
            yield from waiter
        answer: T = self._answer()
        return answer

    def set(self, value: Any = None) -> None:
        """Settle with `value`; with a Held one, when that is settled."""
        if isinstance(value, Held):
            value.bind(self)
        else:
            self.settle(value, None)

    def set_exception(self, exc_info: ExcInfo | None = None) -> None:
        """Settle with the exception being handled, or the one in `exc_info`."""
        self.settle(None, (exc_info or sys.exc_info())[1])

    def set_get_hook(self, func: Callable[[float | None], T]) -> None:
        """Derive the answer from another future's, as pykka's `map` and `stop` do."""
        self._is_derived = True
        super().set_get_hook(func)

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Give the answer, once, to everyone who waits for it."""
        with self._lock:
            if self._outcome is not None:
                raise RuntimeError("this reply has its answer already")
            self._outcome = (value, error)
        for watcher in self._watchers:
            watcher()

    def _watch(self, watcher: Callable[[], object]) -> None:
        with self._lock:
            if self._outcome is None:
                self._watchers.append(watcher)
                return
        watcher()

    def _answer(self) -> Any:
        assert self._outcome is not None
        value, error = self._outcome
        if error is not None:
            raise error
        return value


class Held:
    """What a handler returns to answer later. Only the actor's own thread may touch it."""

    __slots__ = ("_outcome", "_reply")

    def __init__(self) -> None:
        self._reply: Reply[Any] | None = None
        self._outcome: tuple[Any, BaseException | None] | None = None

    def bind(self, reply: Reply[Any]) -> None:
        """Say who asked; pykka does so after the handler has returned."""
        self._reply = reply
        self._pass_on()

    def settle(self, value: Any, error: BaseException | None = None) -> None:
        """Give the answer; a message that was told has nobody to hear it."""
        self._outcome = (value, error)
        self._pass_on()

    def _pass_on(self) -> None:
        if self._reply is not None and self._outcome is not None:
            self._reply.settle(*self._outcome)


def _wake(loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None]) -> None:
    try:
        loop.call_soon_threadsafe(lambda: waiter.done() or waiter.set_result(None))
    except RuntimeError:
        pass  # The loop was closed under the asker: nobody is left to be woken.
