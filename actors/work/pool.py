"""Where handlers run when they do not run in the Worker's own thread: an executor."""

import contextlib
import math
import multiprocessing
import os
import signal
import socket
import struct
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from functools import partial
from itertools import count
from types import TracebackType
from typing import Any, Final, Self

from msgspec import Raw

from actors.handlers import Function
from actors.interrupts import Interrupt, Interrupted
from actors.work.attempt import RemoteError, Report, call, described, overdue

PROGRESS: Final = struct.Struct("d")
#: The thread in a process of a pool that waits for the end of the service.
WATCH: Final = "end with the service"


class Pool:
    """Runs handlers on the executor that `factory` makes, for any number of Workers at once.

    The executor is replaced when it is broken, and when a handler on it had to be abandoned, which may go
    on for any time. A replaced executor is still waited for by the Workers whose handlers run there.
    """

    def __init__(self, factory: Callable[[], object]) -> None:
        """Raise what the factory raises, and TypeError if what it makes is not an executor."""
        self._factory = factory
        self._changing = threading.Condition(threading.Lock())
        self._executor = self._make()
        self._awaited: dict[Executor, set[Future[Any]]] = {self._executor: set()}
        self._is_closed = False
        self._folder = tempfile.TemporaryDirectory(prefix="gofer-")
        self._calls = count()

    def call(self, function: Function, argument: Any, timeout: float | None, report: Report) -> Raw:
        """Run the handler to its end, and return its result as JSON.

        Raises RemoteError for what the handler raised, TimeoutError for one that is abandoned after `timeout`
        seconds, BrokenExecutor if its process died, Interrupted if it had not begun when the pool was closed.
        """
        with _ProgressSocket(f"{self._folder.name}/{next(self._calls)}") as progress:
            task = partial(_call, os.getpid(), progress.address, function, argument, timeout)
            executor, future = self._submit(task)
            future.add_done_callback(progress.hang_up)
            try:
                progress.listen(future, timeout, report)
                return _result(future)
            except CancelledError:
                if self._is_closed:
                    raise Interrupted(Interrupt.RELEASE) from None
                raise
            finally:
                self._leave(executor, future)

    def close(self) -> None:
        """Begin no further handler; those that the executor has not begun yet are interrupted."""
        with self._changing:
            self._is_closed = True
            self._changing.notify_all()
            waiting = [future for futures in self._awaited.values() for future in futures]
        for future in waiting:
            future.cancel()

    def stop(self) -> None:
        """Close, and end the executor; what still runs there was cut off, and is killed if it can be."""
        self.close()
        if any(self._awaited.values()):
            _end(self._executor)
        else:
            self._executor.shutdown()
        self._folder.cleanup()

    def _make(self) -> Executor:
        made = self._factory()
        if not isinstance(made, Executor):
            raise TypeError(f"{made!r} is not a concurrent.futures.Executor")
        return made

    def _submit(self, task: Callable[[], Any]) -> tuple[Executor, Future[Any]]:
        with self._changing:
            self._changing.wait_for(lambda: self._is_closed or self._has_room())
            if self._is_closed:
                raise Interrupted(Interrupt.RELEASE)
            with _without_ctrl_c():
                try:
                    future = self._executor.submit(task)
                except BrokenExecutor:
                    self._replace()
                    future = self._executor.submit(task)
            self._awaited[self._executor].add(future)
            return self._executor, future

    def _has_room(self) -> bool:
        """Tell whether the executor begins the next handler immediately; what waits there is out of reach."""
        room: float = getattr(self._executor, "_max_workers", math.inf)
        return len(self._awaited[self._executor]) < room

    def _leave(self, executor: Executor, future: Future[Any]) -> None:
        """Stop waiting for it. If it still runs, its executor is not used again."""
        is_abandoned = not (future.done() or future.cancel())
        with self._changing:
            self._awaited[executor].discard(future)
            try:
                if is_abandoned and executor is self._executor:
                    self._replace()
                self._end_unused()
            finally:  # Even if the factory raises: another Worker may have room now.
                self._changing.notify_all()

    def _replace(self) -> None:
        self._executor = self._make()
        self._awaited[self._executor] = set()
        self._end_unused()

    def _end_unused(self) -> None:
        for executor, futures in list(self._awaited.items()):
            if executor is not self._executor and not futures:
                del self._awaited[executor]
                _end(executor)


class _ProgressSocket:
    """Where a handler reports its progress: a datagram socket in the file system.

    Any process of this machine can write to it. On another machine the handler finds no such socket, and
    works on without reporting progress.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)

    def listen(self, future: Future[Any], timeout: float | None, report: Report) -> None:
        """Report progress until the future is done. Raises TimeoutError after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while not future.done():
            if end is not None:
                self._socket.settimeout(max(0.001, end - time.monotonic()))
            try:
                message = self._socket.recv(PROGRESS.size)
            except TimeoutError:
                raise overdue(timeout) from None
            if message:
                report(*PROGRESS.unpack(message))

    def hang_up(self, _future: Future[Any]) -> None:
        """End `listen`, as the future is done."""
        _send(self.address, b"", wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._socket.close()
        os.unlink(self.address)  # noqa: PTH108 - it is an address


@contextlib.contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Let processes that are started meanwhile ignore Ctrl-C, which a terminal sends to all of them.

    The first that it ends breaks the pool, even if it has no work yet, and with the pool the jobs in it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGQUIT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _send(address: str, message: bytes, *, wait: bool = False) -> None:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(wait)
        sender.sendto(message, address)


def _call(
    owner: int, address: str, function: Function, argument: Any, timeout: float | None
) -> tuple[bytes, tuple[str, str] | None]:
    """Run the handler, wherever this is. Of an error only texts are returned: not all can be pickled."""
    if os.getpid() != owner:
        _end_with_parent()

    def report(progress: float) -> None:
        _send(address, PROGRESS.pack(progress))

    try:
        return bytes(call(function, argument, timeout, report)), None
    except BaseException as error:  # noqa: BLE001 - a SystemExit would end the process of the pool
        return b"", (described(error), traceback.format_exc())


def _end_with_parent() -> None:
    """Make sure, once, that this process of a pool does not outlive a killed service.

    It would wait forever, and what it runs would go on next to the job's next attempt.
    """
    parent = multiprocessing.parent_process()
    if parent is None or any(thread.name == WATCH for thread in threading.enumerate()):
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name=WATCH, daemon=True).start()


def _result(future: Future[tuple[bytes, tuple[str, str] | None]]) -> Raw:
    result, error = future.result()
    if error is not None:
        raise RemoteError(*error)
    return Raw(result)


def _end(executor: Executor) -> None:
    """End an unused executor; a process that still runs an abandoned handler is killed."""
    # Python 3.14 has ProcessPoolExecutor.kill_workers() for this.
    processes = list((getattr(executor, "_processes", None) or {}).values())
    for process in processes:
        process.kill()
    # Threads cannot be killed, and are not waited for.
    executor.shutdown(wait=bool(processes))
