"""Trouble with the disk: full for a while, broken, or slow, while everything else goes on."""

from typing import Final

from tests.simulation.disk import Broken, Disk, Full, Operation
from tests.simulation.events import Events
from tests.simulation.faults import Kind, Plan
from tests.simulation.scheduler import Scheduler

#: How likely an operation fails, and a sync is slow; and how many seconds that takes.
BREAKING: Final = 0.0005
SLOW: Final = 0.2
SYNCING: Final = (0.001, 0.01, 0.1, 1, 4)
#: How likely others go on at a write or a sync.
SWITCHING: Final = 0.05


class Trouble:
    """Decides what each operation of the disk meets."""

    def __init__(self, plan: Plan, disk: Disk, scheduler: Scheduler, events: Events) -> None:
        self._plan = plan
        self._disk = disk
        self._scheduler = scheduler
        self._events = events
        self._full_until = 0.0
        #: What went wrong in this life of the service.
        self.seen: set[Kind] = set()
        self.is_over = False
        #: Whether a slow sync is under way.
        self.is_syncing = False
        disk.before = self._meet

    def begin_life(self) -> None:
        """Forget what an earlier process has met; the disk may still be full."""
        self.is_syncing = False
        self.seen = {Kind.FULL} if self._is_full else set()

    def fill(self, seconds: float) -> None:
        """Let the disk be full for a while."""
        self._events.note(f"the disk is full for {seconds} s")
        self._full_until = self._scheduler.clock.now + seconds
        self.seen.add(Kind.FULL)

    @property
    def calm(self) -> float:
        """For how many seconds the disk has not been full."""
        return self._scheduler.clock.now - self._full_until

    def end(self) -> None:
        """Have no trouble any more."""
        self.is_over = True
        self._full_until = min(self._full_until, self._scheduler.clock.now)

    @property
    def _is_full(self) -> bool:
        return self._scheduler.clock.now < self._full_until

    def _meet(self, operation: Operation, name: str) -> None:
        if not self._scheduler.is_running_a_task:
            return
        if operation is Operation.SYNC:
            self._events.note(f"sync {name}")
        if operation in (Operation.WRITE, Operation.SYNC):
            self._let_others_go_on(operation)
        if self.is_over:
            return
        if operation is Operation.WRITE and self._is_full:
            self._events.reach("a write on a full disk")
            self.seen.add(Kind.FULL)
            raise Full
        if self._plan.has(Kind.BROKEN) and self._disk.chance.random() < BREAKING:
            self._events.note(f"{operation} {name} fails")
            self._events.reach(f"a broken {operation}")
            self.seen.add(Kind.BROKEN)
            raise Broken

    def _let_others_go_on(self, operation: Operation) -> None:
        chance = self._disk.chance
        can_be_slow = operation is Operation.SYNC and self._plan.has(Kind.SLOW) and not self.is_over
        if can_be_slow and chance.random() < SLOW:
            self._events.reach("a slow sync")
            self.is_syncing = True
            self._scheduler.block(chance.choice(SYNCING), "a sync")
            self.is_syncing = False
        elif chance.random() < SWITCHING:
            self._scheduler.give_way()
