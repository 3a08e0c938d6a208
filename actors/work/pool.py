"""Where handlers run when they do not run in the Worker's own thread: an executor.

The executor may fail at any time, as when a process of it dies or its cluster goes away. Then it is made
again, by a thread of the pool's own: the factory may take long, or raise for as long as the cluster is away.
Meanwhile no call begins, and the Workers wait with their jobs. So a failing executor neither fails a job nor
has Workers busy in a loop.

Why nothing here holds up a stop: no lock is held while the executor's or the factory's code runs, and each
end of an executor has a thread of its own, for which a stop waits only for a while.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final

from msgspec import Raw

from actors import log
from actors.handlers import Function
from actors.interrupts import Interrupt, Interrupted
from actors.work.attempt import Report, described
from actors.work.progress import Line, Progress
from actors.work.task import Call, NotBegun, Task

#: Seconds between two tries to make an executor after one has failed.
PAUSE: Final = 1.0
#: Seconds for which a stop waits for the end of executors; and if calls are left, which it does not wait for.
LONGEST_END: Final = 5.0
LONGEST_CUT: Final = 1.0


class Pool:
    """Runs handlers on the executor that `factory` makes, for any number of Workers at once.

    The executor is replaced when it has failed, and when a handler on it had to be abandoned, which may go
    on for any time. A replaced executor is still waited for by the Workers whose handlers run there.
    """

    def __init__(self, factory: Callable[[], object]) -> None:
        """Raise what the factory raises, and TypeError if what it makes is not an executor."""
        self._factory = factory
        self._log = log.logger("Pool")
        self._level = log.level()
        self._changing = threading.Condition(threading.Lock())
        with contextlib.ExitStack() as undo:
            self._progress = Progress()
            undo.callback(self._progress.close)
            #: None while it is to be made again.
            self._executor: Executor | None = _made(factory)
            undo.callback(_end, self._executor)
            #: What was handed, or is about to be, to each executor that has not ended.
            self._tasks: dict[Executor, set[Task]] = {self._executor: set()}
            self._is_closed = self._is_stopped = False
            self._not_before = 0.0
            self._problem: str | None = None
            self._ends: list[threading.Thread] = []
            self._keeper = threading.Thread(target=self._keep, name="executor", daemon=True)
            self._keeper.start()
            undo.pop_all()

    def call(
        self,
        function: Function,
        argument: Any,
        timeout: float | None,
        report: Report,
        job: log.AtWork | None = None,
    ) -> Raw:
        """Run the handler to its end, and return its result as JSON.

        Raises RemoteError for what the handler raised, TimeoutError for one that is abandoned after `timeout`
        seconds, ExecutorFailed if it was cut off, Interrupted if it had not begun when the pool was closed.
        """
        with self._progress.of(report) as line:
            while True:
                task = self._enter(Call(function, argument, timeout, job, self._level), line)
                try:
                    return self._run(task)
                except NotBegun:
                    continue  # On the next executor, unless the pool was closed.
                finally:
                    self._leave(task)

    def problem(self) -> str | None:
        """Return why no handler begins at the moment; None if all is well. Never waits."""
        return self._problem if self._executor is None else None

    def close(self) -> None:
        """Begin no further handler; those that have provably not begun yet are interrupted."""
        with self._changing:
            self._is_closed = True
            self._changing.notify_all()
            tasks = [task for tasks in self._tasks.values() for task in tasks]
        for task in tasks:
            task.withdraw()

    def stop(self) -> None:
        """Close, and end the executor; what still runs there was cut off, and is killed if it can be."""
        self.close()
        with self._changing:
            self._is_stopped = True
            is_idle = not any(self._tasks.values())
            for executor in self._tasks:
                self._begin_end(executor, wait=is_idle)
        end = time.monotonic() + (LONGEST_END if is_idle else LONGEST_CUT)
        for thread in [*self._ends, self._keeper]:
            thread.join(max(0, end - time.monotonic()))
        self._progress.close()

    # A call.

    def _enter(self, call: Call, line: Line) -> Task:
        """Wait until the executor can begin another. Raises Interrupted if the pool is closed before."""
        with self._changing:
            self._changing.wait_for(lambda: self._is_closed or self._has_room())
            if self._is_closed:
                raise Interrupted(Interrupt.RELEASE)
            assert self._executor is not None
            task = Task(self._executor, call, line)
            self._tasks[self._executor].add(task)
            return task

    def _has_room(self) -> bool:
        """Tell whether the executor begins the next handler immediately; what waits there is out of reach."""
        if self._executor is None:
            return False
        room: float = getattr(self._executor, "_max_workers", math.inf)
        return len(self._tasks[self._executor]) < room

    def _run(self, task: Task) -> Raw:
        task.submit()
        if self._is_closed:  # It was perhaps not submitted yet when the others were withdrawn.
            task.withdraw()
        self._problem = None
        return task.result()

    def _leave(self, task: Task) -> None:
        """Stop waiting for it. If its executor has failed, or still runs it, that is not used again."""
        is_abandoned = not task.cancel()
        with self._changing:
            self._tasks[task.executor].discard(task)
            if task.executor is self._executor and not self._is_closed:
                self._judge(task, is_abandoned=is_abandoned)
            self._end_unused()
            self._changing.notify_all()

    def _judge(self, task: Task, *, is_abandoned: bool) -> None:
        """Have the executor made again if this task shows that it is of no use any longer."""
        if task.failure is not None:
            self._executor = None
            self._note(f"the executor failed: {task.failure}")
        elif is_abandoned:
            self._executor = None
            self._not_before = 0.0

    # The executor.

    def _keep(self) -> None:
        """Make an executor whenever there is none, until the pool is closed."""
        while self._is_wanted():
            try:
                executor = _made(self._factory)
            except BaseException as error:  # noqa: BLE001 - the factory's, and it may be there again later
                self._note(f"no executor can be made: {described(error)}")
                continue
            with self._changing:
                self._tasks.setdefault(executor, set())
                self._executor = executor
                self._changing.notify_all()
                if self._is_stopped:  # It was not there yet when the others were ended.
                    self._begin_end(executor)

    def _is_wanted(self) -> bool:
        """Wait until an executor is missing and may be made; return False once the pool is closed."""
        with self._changing:
            self._changing.wait_for(lambda: self._is_closed or self._executor is None)
            while not self._is_closed and (seconds := self._not_before - time.monotonic()) > 0:
                self._changing.wait(seconds)
            self._not_before = time.monotonic() + PAUSE
            return not self._is_closed

    def _note(self, problem: str) -> None:
        """Note why there is no executor, and say so once."""
        if self._problem != problem:
            self._log.warning("jobs wait for an executor", problem=problem)
        self._problem = problem

    def _end_unused(self) -> None:
        for executor, tasks in list(self._tasks.items()):
            if executor is not self._executor and not tasks:
                del self._tasks[executor]
                self._begin_end(executor)

    def _begin_end(self, executor: Executor, *, wait: bool = False) -> None:
        """End it in a thread of its own: it may hang."""
        thread = threading.Thread(target=_end, args=(executor,), kwargs={"wait": wait}, daemon=True)
        self._ends = [*filter(threading.Thread.is_alive, self._ends), thread]
        try:
            thread.start()
        except RuntimeError:  # No more threads, or Python is ending.
            self._ends.remove(thread)
            _end(executor, wait=wait)


def _made(factory: Callable[[], object]) -> Executor:
    made = factory()
    if not isinstance(made, Executor):
        raise TypeError(f"{made!r} is not a concurrent.futures.Executor")
    return made


def _end(executor: Executor, *, wait: bool = False) -> None:
    """End an executor; unless it is waited for, a process that still runs an abandoned handler is killed."""
    try:
        # Python 3.14 has ProcessPoolExecutor.kill_workers() for this.
        processes = list((getattr(executor, "_processes", None) or {}).values())
        for process in [] if wait else processes:
            getattr(process, "kill", process.terminate)()
        # Threads cannot be killed, and are not waited for.
        executor.shutdown(wait=wait or bool(processes))
    except BaseException as error:  # noqa: BLE001 - whatever it raises, it is no longer used
        log.logger("Pool").warning("an executor did not end", error=described(error))
