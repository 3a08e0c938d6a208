"""Threads are greenlets, and one scheduler with a seed says which of them goes on.

Why the same seed gives the same run: all tasks share one thread of the operating system, and control
passes from one to another only here, by a choice that the seeded `random` makes. Time is a number that
grows only when no task can go on, so that the machine's speed plays no part either.

Where control may pass: at each `point` (each operation of a lock, each statement of the modules that share
data without one, each write to the disk), with a probability that the seed chooses. At one, a task may
also be paused for a while, as a thread that gets no CPU.
"""

import heapq
import math
import random
from collections.abc import Callable
from typing import Final

import greenlet

from tests.simulation.clock import Clock

#: How likely a switch is at an operation of a lock, and how much less so at a statement.
SWITCHING: Final = (0.02, 0.1, 0.3)
RARER_AT_STATEMENTS: Final = (1, 4, 10)
#: Seconds for which a task that gets no CPU is paused.
PAUSES: Final = (0.0005, 0.02, 0.5)


class Task(greenlet.greenlet):  # type: ignore[misc]  # greenlet has no types
    """A thread of the simulated process."""

    def __init__(self, scheduler: "Scheduler", name: str, body: Callable[[], object]) -> None:
        super().__init__(self._live, scheduler.hub)
        self.scheduler = scheduler
        self.name = name
        self._body = body
        self.is_done = False
        #: What its body raised.
        self.error: BaseException | None = None
        #: What it waits for; None while it runs or could.
        self.waits_for: object = None
        #: The tasks that wait for its end.
        self.joiners: list[Task] = []
        #: Counts its waits, so that a timer knows whether the wait that it was for is over.
        self.waits = 0
        #: Whether it waits; one that was woken waits no longer, though it has not run yet.
        self.is_waiting = False
        self.has_timed_out = False

    def _live(self) -> None:
        try:
            self._body()
        except BaseException as error:  # noqa: BLE001 - it is for whoever looks at the task
            self.error = error
        self.is_done = True
        for joiner in self.joiners:
            self.scheduler.wake(joiner)


def current() -> Task:
    """Return the task that is running."""
    task = greenlet.getcurrent()
    if not isinstance(task, Task):
        raise TypeError("only a task of the simulation may do this, not its scheduler")
    return task


class Points:
    """Where the GIL could let another thread go on: before each statement of certain modules."""

    def __init__(self) -> None:
        #: After how many of them another task may go on: counting is all that most of them do.
        self.left = 0
        self.give_way: Callable[[], None] = lambda: None

    def statement(self) -> None:
        """Stand before a statement."""
        self.left -= 1
        if self.left <= 0:
            self.give_way()


class Scheduler:
    """Runs tasks, one at a time, and lets time pass when none of them can go on."""

    def __init__(self, chance: random.Random, clock: Clock, points: Points) -> None:
        self.chance = chance
        self.clock = clock
        self.hub = greenlet.getcurrent()
        self.tasks: list[Task] = []
        #: How often one task was followed by another.
        self.switches = 0
        #: The same since time passed last.
        self.restless = 0
        #: How likely a switch is a pause, and how many tasks are paused now.
        self.pausing = 0.0
        self.paused = 0
        #: Called before time passes, with the time to which it does.
        self.on_advance: Callable[[float], None] = lambda _: None
        self._ready: list[Task] = []
        self._timers: list[tuple[float, int, Task, int]] = []
        self._order = 0
        self._current: Task | None = None
        #: Tasks of killed processes. They are kept, as greenlets that are freed would run their `finally`.
        self._dead: list[Task] = []
        at_locks = chance.choice(SWITCHING)
        self._at_locks = 1 / math.log1p(-at_locks)
        self._at_statements = 1 / math.log1p(-at_locks / chance.choice(RARER_AT_STATEMENTS))
        self._locks_left = self._steps(self._at_locks)
        self._points = points
        points.left, points.give_way = self._steps(self._at_statements), self._give_way_at_statement

    def spawn(self, name: str, body: Callable[[], object]) -> Task:
        """Begin a task; it runs when it is chosen."""
        task = Task(self, name, body)
        self.tasks.append(task)
        self._ready.append(task)
        return task

    def kill(self) -> None:
        """End all tasks where they are, as a killed process ends its threads."""
        self._dead += self.tasks
        self.tasks, self._ready, self._timers, self.paused = [], [], [], 0

    # What a task does.

    def point(self) -> None:
        """Perhaps let another task go on: an operation of a lock."""
        self._locks_left -= 1
        if self._locks_left <= 0:
            self._locks_left = self._steps(self._at_locks)
            self.give_way()

    def give_way(self) -> None:
        """Let another task go on, and perhaps get no CPU for a while."""
        task = self._current
        if task is None:
            return
        if self.pausing and self.chance.random() < self.pausing:
            self.paused += 1
            self.block(self.chance.choice(PAUSES), "the CPU")
            self.paused -= 1
        else:
            self._ready.append(task)
            self.hub.switch()

    def block(self, seconds: float | None, reason: object) -> bool:
        """Wait to be woken, for at most `seconds`; tell whether it was in time."""
        task = current()
        task.waits += 1
        task.is_waiting, task.has_timed_out = True, False
        task.waits_for = reason
        if seconds is not None:
            self._order += 1
            heapq.heappush(self._timers, (self.clock.now + max(0.0, seconds), self._order, task, task.waits))
        self.hub.switch()
        task.waits_for = None
        return not task.has_timed_out

    def wake(self, task: Task) -> bool:
        """Let a task go on that waits; tell whether it did, as another may have woken it, or its timer."""
        if not task.is_waiting:
            return False
        task.is_waiting = False
        task.waits += 1
        self._ready.append(task)
        return True

    # What the simulation does.

    def run(self, until: Callable[[], bool], limit: float) -> bool:
        """Let the tasks go on until that holds, or it is so late; tell whether it holds."""
        while not until():
            if self._ready:
                self._step()
                continue
            when = min(self._next_timer(), limit)
            if when > self.clock.now:
                self.on_advance(when)
                self.clock.now, self.restless = when, 0
            if self._next_timer() > self.clock.now:
                return until()
            self._expire()
        return True

    @property
    def is_running_a_task(self) -> bool:
        """Whether a task runs now, and not the simulation itself."""
        return self._current is not None

    def _give_way_at_statement(self) -> None:
        self._points.left = self._steps(self._at_statements)
        self.give_way()

    def _step(self) -> None:
        ready = self._ready
        place = self.chance.randrange(len(ready)) if len(ready) > 1 else 0
        task = ready[place]
        ready[place] = ready[-1]
        ready.pop()
        self.switches += 1
        self.restless += 1
        self._current = task
        task.switch()
        self._current = None

    def _next_timer(self) -> float:
        while self._timers and self._timers[0][2].waits != self._timers[0][3]:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else math.inf

    def _expire(self) -> None:
        task = heapq.heappop(self._timers)[2]
        task.has_timed_out = True
        self.wake(task)

    def _steps(self, scale: float) -> int:
        """Return after how many points the next switch is: cheaper than to draw at each of them."""
        return int(math.log(1.0 - self.chance.random()) * scale) + 1
