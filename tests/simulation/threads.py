"""The `threading` and `time` modules of simulated code: locks that switch tasks, and seconds of the clock.

They are what the standard library says of them, no more: a lock that is released wakes one waiter of the
scheduler's choice, and another task may take the lock before that one; so may one that comes between the
end of a wait for a condition and taking its lock again. Code that is right with these needs no fairness.
"""

import threading
import time
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, Self

from tests.simulation.scheduler import Scheduler, Task, current


class Lock:
    """A mutex."""

    def __init__(self) -> None:
        self._is_held = False
        self._waiters: list[Task] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        task = current()
        scheduler = task.scheduler
        scheduler.point()
        end = None if timeout < 0 else scheduler.clock.now + timeout
        while self._is_held:
            if not blocking:
                return False
            self._waiters.append(task)
            if not scheduler.block(None if end is None else end - scheduler.clock.now, self):
                if task in self._waiters:
                    self._waiters.remove(task)
                return False
        self._is_held = True
        return True

    def release(self) -> None:
        if not self._is_held:
            raise RuntimeError("release unlocked lock")
        scheduler = current().scheduler
        self._is_held = False
        self.wake_one(scheduler)
        scheduler.point()

    def wake_one(self, scheduler: Scheduler) -> None:
        """Let one of the waiters look again."""
        while self._waiters:
            waiter = self._waiters.pop(scheduler.chance.randrange(len(self._waiters)))
            if scheduler.wake(waiter):
                return

    def locked(self) -> bool:
        return self._is_held

    def let_go(self, scheduler: Scheduler) -> Callable[[], None]:
        """Release it for a wait, without a switch in between; return what takes it again."""
        if not self._is_held:
            raise RuntimeError("cannot wait on un-acquired lock")
        self._is_held = False
        self.wake_one(scheduler)
        return self._take

    def _take(self) -> None:
        self.acquire()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock:
    """A mutex that its owner may take again."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._owner: Task | None = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        task = current()
        if self._owner is not task:
            if not self._lock.acquire(blocking, timeout):
                return False
            self._owner = task
        self._depth += 1
        return True

    def release(self) -> None:
        if self._owner is not current():
            raise RuntimeError("cannot release un-acquired lock")
        self._depth -= 1
        if not self._depth:
            self._owner = None
            self._lock.release()

    def let_go(self, scheduler: Scheduler) -> Callable[[], None]:
        """Release it for a wait, however often it was taken; return what takes it again."""
        depth, self._depth, self._owner = self._depth, 0, None
        self._lock.let_go(scheduler)

        def take() -> None:
            self.acquire()
            self._depth = depth

        return take

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Condition:
    """A condition on a lock."""

    def __init__(self, lock: Lock | RLock | None = None) -> None:
        self._lock = lock or RLock()
        self._waiters: list[Task] = []
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def wait(self, timeout: float | None = None) -> bool:
        task = current()
        self._waiters.append(task)
        take_again = self._lock.let_go(task.scheduler)
        is_notified = task.scheduler.block(timeout, self)
        if task in self._waiters:
            self._waiters.remove(task)
        take_again()
        return is_notified

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        clock = current().scheduler.clock
        end = None if timeout is None else clock.now + timeout
        while not (result := predicate()):
            if end is not None and clock.now >= end:
                break
            self.wait(None if end is None else end - clock.now)
        return result

    def notify(self, n: int = 1) -> None:
        scheduler = current().scheduler
        for task in self._waiters[:n]:
            scheduler.wake(task)
        del self._waiters[:n]

    def notify_all(self) -> None:
        self.notify(len(self._waiters))

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Event:
    """A flag that can be waited for."""

    def __init__(self) -> None:
        self._is_set = False
        self._changed = Condition(Lock())

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        with self._changed:
            self._is_set = True
            self._changed.notify_all()

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        with self._changed:
            return bool(self._changed.wait_for(self.is_set, timeout))


class Thread:
    """A task, as a thread."""

    def __init__(  # noqa: PLR0913 - as in the standard library
        self,
        group: None = None,  # noqa: ARG002 - as in the standard library
        target: Callable[..., object] = lambda: None,
        name: str = "Thread",
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self._call = lambda: target(*args, **(kwargs or {}))
        self.name = name
        self.daemon = bool(daemon)
        self._task: Task | None = None

    def start(self) -> None:
        scheduler = current().scheduler
        self._task = scheduler.spawn(self.name, self._call)
        self._task.thread = self
        scheduler.point()

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.is_done

    def join(self, timeout: float | None = None) -> None:
        if self._task is None:
            raise RuntimeError("cannot join thread before it is started")
        if not self._task.is_done:
            self._task.joiners.append(current())
            current().scheduler.block(timeout, self)


class OtherThread:
    """A task that was not begun as a thread: a client, or whoever starts and stops the service."""

    daemon = False

    def __init__(self, name: str) -> None:
        self.name = name

    def is_alive(self) -> bool:
        return True

    @classmethod
    def of(cls, task: Task) -> Self:
        return cls(task.name)


def current_thread() -> Thread | OtherThread:
    """Return the thread that runs."""
    task = current()
    thread: Thread | None = getattr(task, "thread", None)
    return thread or OtherThread(task.name)


def threading_module() -> ModuleType:
    """Return a `threading` module for simulated code."""
    return _like(
        threading,
        Lock=Lock,
        RLock=RLock,
        Condition=Condition,
        Event=Event,
        Thread=Thread,
        current_thread=current_thread,
        get_ident=lambda: id(current()),
    )


def time_module() -> ModuleType:
    """Return a `time` module for simulated code."""
    return _like(
        time,
        monotonic=lambda: current().scheduler.clock.now,
        monotonic_ns=lambda: int(current().scheduler.clock.now * 1e9),
        perf_counter=lambda: current().scheduler.clock.now,
        time=lambda: current().scheduler.clock.wall(),  # noqa: PLW0108 - not that of the task that imports
        time_ns=lambda: int(current().scheduler.clock.wall() * 1e9),
        sleep=lambda seconds: current().scheduler.block(seconds, "a sleep"),
    )


def _like(module: ModuleType, **changed: object) -> ModuleType:
    other = ModuleType(module.__name__)
    vars(other).update({name: value for name, value in vars(module).items() if not name.startswith("__")})
    vars(other).update(changed)
    return other
