"""A task: one call of a handler on an executor, as its Worker sees it, and as it runs there.

What is run twice, or not at all, hangs on one question: had the call begun when its executor failed, or
when the service was stopped? Only two answers are proofs that it had not:

- `cancel()` of a future of the standard library's executors. Other futures, such as Dask's, stay "pending"
  while their call runs, and may be cancelled all the same: such a call counts as one that may have begun
  from the moment on at which it was submitted.
- `submit` raised, and the task could be taken back: it had neither been called nor, by one of the standard
  executors, been pickled, and will not be. (They raise too when no thread or process can be started, and
  then the call is in their queue already. Of other executors a `submit` that raises has sent nothing.)

Whatever the handler raises comes back as a value, in words. So what a future raises is never the handler's:
either the call cannot be pickled, or not be unpickled there, which is the job's failure, or it is the
executor's own, and the call was cut off.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NamedTuple

from msgspec import Raw

from actors import log
from actors.handlers import Function
from actors.work.attempt import RemoteError, call, described, overdue
from actors.work.progress import Line

#: The thread in a process of a pool that waits for the end of the service.
WATCH: Final = "end with the service"
#: What is raised for a call that cannot be pickled, or not be unpickled where it is to run.
UNSENDABLE: Final = (pickle.PicklingError, TypeError, AttributeError, ImportError)

#: A result as JSON; or of an error its description and its traceback, as not all can be pickled.
Ended = tuple[bytes, tuple[str, str] | None]


class NotBegun(Exception):
    """The executor has failed, or the pool was closed, before the call began; it can be made again."""


class ExecutorFailed(Exception):
    """The executor has failed while the call was running, or may have been."""


class Call(NamedTuple):
    """What is to be run, and how."""

    function: Function
    argument: Any
    timeout: float | None
    #: Of what the log is, and at which level, if it is Gofer's.
    job: log.AtWork | None = None
    level: str | None = None


class Task:
    """Handed to one executor, once."""

    def __init__(self, executor: Executor, handler_call: Call, line: Line) -> None:
        self.executor = executor
        self._is_standard = isinstance(executor, ThreadPoolExecutor | ProcessPoolExecutor)
        self._call = handler_call
        self._run: Callable[[], Ended] = partial(_run, os.getpid(), line, handler_call)
        self._future: Future[Ended] | None = None
        self._has_ended = threading.Event()
        #: Held while it is decided whether the call begins.
        self._beginning = threading.Lock()
        self._may_have_begun = False
        self._is_taken_back = False
        #: What its executor has failed with.
        self.failure: str | None = None

    # As its executor sees it.

    def __call__(self) -> Ended:
        """Run the handler in a thread of this process."""
        self._begin()
        return self._run()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Be pickled, on the way to where it runs."""
        if self._is_standard:
            self._begin()
        run = self._run
        assert isinstance(run, partial)
        return partial, (run.func, *run.args)

    def _begin(self) -> None:
        with self._beginning:
            if self._is_taken_back:
                raise NotBegun
            self._may_have_begun = True

    # As its Worker sees it.

    def submit(self) -> None:
        """Hand it to the executor. Raises NotBegun or ExecutorFailed, or why it cannot be pickled."""
        try:
            with _without_ctrl_c():
                self._future = self.executor.submit(self)
                self._future.add_done_callback(lambda _: self._has_ended.set())
        except BaseException as error:
            is_taken_back = self._take_back()
            if isinstance(error, UNSENDABLE) and not self._can_be_pickled():
                raise
            raise self._failed(error, has_begun=not is_taken_back) from error

    def result(self) -> Raw:
        """Wait for the result, as JSON.

        Raises RemoteError for what the handler raised, TimeoutError for one that is abandoned at its limit,
        NotBegun or ExecutorFailed if the executor has failed.
        """
        timeout = self._call.timeout
        if not self._has_ended.wait(timeout):
            raise overdue(timeout)
        assert self._future is not None
        try:
            result, error = self._future.result()
        except UNSENDABLE:
            raise
        except BaseException as failure:
            was_cancelled = self._is_standard and isinstance(failure, CancelledError)
            raise self._failed(failure, has_begun=not was_cancelled) from failure
        if error is not None:
            raise RemoteError(*error)
        return Raw(result)

    def withdraw(self) -> None:
        """End the wait for it if it has provably not begun."""
        if self._is_standard:
            self.cancel()

    def cancel(self) -> bool:
        """Have it not begin, or not be waited for; return whether the executor is free of it."""
        with contextlib.suppress(Exception):
            return self._future is None or self._future.done() or self._future.cancel()
        return False

    def _failed(self, error: BaseException, *, has_begun: bool) -> NotBegun | ExecutorFailed:
        self.failure = described(error)
        return ExecutorFailed(self.failure) if has_begun else NotBegun(self.failure)

    def _can_be_pickled(self) -> bool:
        try:
            pickle.dumps(self._run)
        except Exception:  # noqa: BLE001 - what the handler is made of may raise anything
            return False
        return True

    def _take_back(self) -> bool:
        """See to it that it does not begin; return False if that is too late."""
        with self._beginning:
            self._is_taken_back = not (self._may_have_begun or self._future is not None)
            return self._is_taken_back


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


# Where it runs.


def _run(owner: int, line: Line, handler_call: Call) -> Ended:
    function, argument, timeout, job, level = handler_call
    if os.getpid() != owner:
        _belong_to_parent(level)
    context = log.JOB.set(job)
    try:
        return bytes(call(function, argument, timeout, line.report)), None
    except BaseException as error:  # noqa: BLE001 - a SystemExit would end the process of the pool
        return b"", (described(error), log.described(error))
    finally:
        log.JOB.reset(context)


def _belong_to_parent(level: str | None) -> None:
    """Have this process of a pool, once, log like the service, and not outlive it when it is killed.

    It would wait forever, and what it runs would go on next to the job's next attempt.
    """
    parent = multiprocessing.parent_process()
    if parent is None or any(thread.name == WATCH for thread in threading.enumerate()):
        return
    log.adopt(level)

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name=WATCH, daemon=True).start()
