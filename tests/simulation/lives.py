"""One seed: the lives of a service on one disk, each begun on what the last has left, and then peace.

A life is started, asked for things, troubled, and ended by a power cut, a kill or a stop; it may be cut
while it starts. After each the file is compared with the book. In peace there is no trouble, and
everything has to come to its end.
"""

import gc
import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from tests.simulation import production
from tests.simulation.audit import Audit
from tests.simulation.book import Book, How
from tests.simulation.checks import Checks
from tests.simulation.clients import STEP, Clients, handlers
from tests.simulation.clock import Clock
from tests.simulation.disk import Disk
from tests.simulation.events import Events
from tests.simulation.faults import ENDS, Kind, Plan, drawn
from tests.simulation.loading import Machine
from tests.simulation.production import Service
from tests.simulation.scheduler import Scheduler, Task
from tests.simulation.trouble import Trouble

MOST_LIVES: Final = 12
#: Seconds in which a start must be over, and a stop after its grace; and everything, in peace.
STARTING: Final = 1000.0
STOPPING: Final = 60.0
PEACE: Final = 4000.0
#: Switches after which time must have passed.
RESTLESS: Final = 100_000
#: How many seconds a life lasts, at most, and after how many switches it is cut, if it is.
LASTING: Final = (1, 10, 100)
CUT_AT: Final = (30, 300, 3000, 10**9)
#: How likely a life ends in a slow sync, if there are any.
CUTTING_SYNC: Final = 0.3
CUT_START_AT: Final = (5, 50, 400)
#: What clients do in one life, at most.
DOING: Final = (5, 20, 60, 150)
CLIENTS: Final = (1, 4, 8)
#: Seconds that are no more than the rounding of a time to wait.
ROUNDING: Final = 1e-6
PAUSING_AT_A_STOP: Final = 0.4
GRACES: Final = (0, 0.1, 5, 25)


@dataclass(frozen=True)
class Outcome:
    """How a seed went."""

    plan: Plan
    events: Events
    seconds: float
    switches: int
    jobs: int


def live(
    machine: Machine, seed: int, steps: int, without: Collection[Kind] = (), *, keeps_all: bool = False
) -> Outcome:
    """Live through a seed, in the greenlet that calls."""
    gc.disable()  # It would run finalizers when the memory of the process says so, not the seed.
    plan = drawn(seed, steps, without)
    lives = Lives(plan, machine, keeps_all=keeps_all)
    with production.watched(plan, lives.disk, lives.checks, lives.events.reach):
        lives.run()
    scheduler = lives.scheduler
    return Outcome(plan, lives.events, scheduler.clock.now, scheduler.switches, len(lives.book.stories))


class Lives:
    """All that one seed is made of."""

    def __init__(self, plan: Plan, machine: Machine, *, keeps_all: bool) -> None:
        random.seed(plan.seed)  # What the real code draws.
        self._plan = plan
        self._vfs = machine.vfs
        self._chance = random.Random(f"lives {plan.seed}")
        self._clock = Clock()
        self.events = Events(self._clock, keeps_all=keeps_all)
        self.scheduler = Scheduler(random.Random(f"scheduler {plan.seed}"), self._clock, machine.points)
        self.scheduler.pausing = plan.pausing
        self.scheduler.on_advance = self._advance
        self.disk = Disk(random.Random(f"disk {plan.seed}"), self._clock.wall)
        self._vfs.begin(self.disk)
        self._trouble = Trouble(plan, self.disk, self.scheduler, self.events)
        self.book = Book()
        self.checks = Checks(plan, self.book, self.events, self._clock)
        self._clients = Clients(plan, self.scheduler, book=self.book, checks=self.checks, events=self.events)
        self._clients.is_excused = lambda: self._is_lost or self._is_stopping or bool(self._trouble.seen)
        self._audit = Audit(plan, self.scheduler, self.book, self.events)
        self._service: Service | None = None
        self._is_up = self._is_lost = self._is_stopping = self._is_brought_down = False
        self._is_in_peace = False

    def run(self) -> None:
        """Live through all lives, and then in peace."""
        while self.checks.life < MOST_LIVES and self._clients.left > 0 and not self._has_failed():
            cut_at = None
            if self._plan.has(Kind.CUT_START) and self._chance.random() < 0.3:
                cut_at = self.scheduler.switches + self._chance.choice(CUT_START_AT)
            if self._start(cut_at):
                self._go_on()
                self._end()
            elif not self._has_failed():
                self.events.reach("a start cut or refused")
                if any(name.endswith("-journal") for name in self.disk.files):
                    self.events.reach("a start cut in a migration")
                self._crash(with_power=self._plan.has(Kind.POWER) and self._chance.random() < 0.5)
        if not self._has_failed():
            self._live_in_peace()

    # How a life begins.

    def _start(self, cut_at: int | None = None) -> bool:
        """Start the service; tell whether it is up."""
        self.checks.begin_life()
        self._trouble.begin_life()
        self._is_up = self._is_lost = self._is_stopping = self._is_brought_down = False
        self.scheduler.pausing = self._plan.pausing
        production.forget_processes()
        is_once = self._plan.is_once(self.checks.life)
        service = Service(self._plan, handlers(self._bring_down), self._lose, at_most_once=is_once)
        self._service = service
        self.events.note(f"life {self.checks.life} starts")
        task = self.scheduler.spawn("start", service.start)
        is_over = self.scheduler.run(
            lambda: (
                self._has_failed()
                or task.is_done
                or (cut_at is not None and self.scheduler.switches >= cut_at)
            ),
            self._clock.now + STARTING,
        )
        if not is_over:
            self.events.fail("a start does not end", self._told_tasks())
        if task.error is not None:
            self.events.fail("a start fails with an error that is not Gofer's", repr(task.error))
        if service.refusal is not None and not self._trouble.seen:
            self.events.fail("a start is refused without a fault", str(service.refusal))
        self._is_up = task.is_done and service.refusal is None and not self._has_failed()
        return self._is_up

    def _lose(self) -> None:
        self._is_lost = True
        self.events.note("the JobStore has ended")
        if Kind.BROKEN not in self._trouble.seen:
            failure = None if self._service is None or not self._is_up else self._service.failure
            self.events.fail("the JobStore ends without a fault", repr(failure))

    def _bring_down(self) -> None:
        """End the process, for a job that does so; a stop that has begun cuts that job off."""
        if self._is_in_peace:
            return
        if not self._is_stopping:
            self.events.note("a job brings the process down")
            self._is_brought_down = True
        self.scheduler.block(None, STEP)

    # What happens in a life.

    def _go_on(self) -> None:
        """Let clients and trouble come, for a while."""
        chance = self._chance
        for _ in range(chance.choice(CLIENTS)):
            self._spawn_client()
        left, end = self._clients.left - chance.choice(DOING), self._clock.now + chance.choice(LASTING)
        cut_at = self.scheduler.switches + chance.choice(CUT_AT)
        cuts_sync = self._plan.has(Kind.SLOW) and chance.random() < CUTTING_SYNC

        def is_over() -> bool:
            return (
                self._has_failed()
                or self._is_lost
                or self._is_brought_down
                or self._clients.left <= max(0, left)
                or self.scheduler.switches >= cut_at
                or (cuts_sync and self._trouble.is_syncing)
            )

        while self._clock.now < end:
            if self.scheduler.run(is_over, self._clock.now + chance.choice((0.01, 0.3, 2))):
                return
            self._bring_trouble()

    def _spawn_client(self) -> None:
        service, life = self._living, self.checks.life
        self.scheduler.spawn("client", lambda: self._watch_over(lambda: self._clients.live(service, life)))

    def _watch_over(self, body: object) -> None:
        assert callable(body)
        try:
            body()
        except Exception as error:  # noqa: BLE001 - a client meets only what it knows
            self.events.fail("a client meets an error that it does not know", repr(error))

    def _bring_trouble(self) -> None:
        if self._plan.has(Kind.FULL) and self._chance.random() < 0.2:
            self._trouble.fill(self._chance.choice((0.1, 0.7, 3)))
        if self._plan.has(Kind.CLOCK) and self._chance.random() < 0.1:
            seconds = self._chance.choice((-3600, 3600, -30, 30))
            self.events.note(f"the wall clock is set by {seconds} s")
            self._clock.set_forward(seconds)

    # How a life ends.

    def _end(self) -> None:
        if self._has_failed():
            return
        ends = [kind for kind in ENDS if self._plan.has(kind)]
        if self._is_lost:
            ends = [Kind.STOP, Kind.KILL]
        end = Kind.KILL if self._is_brought_down else self._chance.choice(ends)
        if end is Kind.STOP:
            self._stop(self._chance.choice(GRACES))
        else:
            self._crash(with_power=end is Kind.POWER)

    def _crash(self, *, with_power: bool) -> None:
        self._is_up = False
        self.events.note("the power is cut" if with_power else "the process is killed")
        if self._trouble.is_syncing:
            self.events.reach("a kill during a sync")
        self.scheduler.kill()
        self._clients.waiting.clear()
        self.book.cut(self._clock.now, self.events.count)
        self.disk.lose_power() if with_power else self.disk.kill()
        how = How.CUT_OFF if with_power else How.CRASH
        self.checks.check_file(production.rows(self._vfs, self.disk), how, is_certain=False)

    def _stop(self, grace: float) -> None:
        self._is_stopping = True
        self.checks.stopped_at = self._clock.now + self._living.waiting(grace)
        self.events.note(f"it is told to stop, with a grace of {grace} s")
        if self._plan.has(Kind.PAUSE):
            self.scheduler.pausing = PAUSING_AT_A_STOP  # What comes too late is what a stop may forget.
        service = self._living
        task = self.scheduler.spawn("stop", lambda: service.stop(grace))
        limit = self._clock.now + grace + STOPPING
        if not self.scheduler.run(lambda: task.is_done or self._has_failed(), limit):
            self.events.fail("a stop does not end", self._told_tasks())
        if task.error is not None:
            self.events.fail("a stop fails", repr(task.error))
        self.book.cut(self._clock.now, self.events.count)
        self._let_end([task])
        is_clean = service.failure is None and not self._trouble.seen
        self._is_up = False
        self.scheduler.kill()
        self.book.cut(self._clock.now, self.events.count)
        if self._plan.has(Kind.POWER) and self._chance.random() < 0.5:
            self.events.note("the power is cut after the stop")
            self.disk.lose_power()
        else:
            self.disk.kill()
        how = How.CUT_OFF if is_clean else How.EITHER
        self.checks.check_file(production.rows(self._vfs, self.disk), how, is_certain=is_clean)

    def _let_end(self, tasks: list[Task]) -> None:
        """See that each thread ends, and each ask is answered, soon after a stop."""
        limit = self._clock.now + STOPPING
        self.scheduler.run(
            lambda: self._has_failed() or all(task.is_done for task in self.scheduler.tasks), limit
        )
        if self._clients.waiting:
            self.events.fail(
                "an ask is not answered at a stop", repr(list(self._clients.waiting.values()))[:300]
            )
        outlasted = [task for task in self.scheduler.tasks if task.waits_for == STEP]  # They are cut off.
        left = [t.name for t in self.scheduler.tasks if not t.is_done and t not in (*tasks, *outlasted)]
        if left:
            self.events.fail("a thread does not end at a stop", ", ".join(left))

    def _live_in_peace(self) -> None:
        """Without trouble everything comes to its end, and then to a stop."""
        self.events.note("peace")
        self._trouble.end()
        self._is_in_peace = True
        self._clock.catch_up()
        self._clients.left = 0
        if not self._start():
            self.events.fail("it does not start in peace", repr(self._living.refusal))
            return
        self.scheduler.run(lambda: self._has_failed() or self._is_all_finished(), self._clock.now + PEACE)
        if not self._has_failed() and not self._is_all_finished():
            left = f"{self._living.unfinished} jobs do not; {self._told_tasks()}"
            self.events.fail("not everything ends in peace", left)
        if not self._has_failed():
            self._stop(5)

    def _is_all_finished(self) -> bool:
        return not self._living.unfinished

    # What is going on.

    @property
    def _living(self) -> Service:
        assert self._service is not None
        return self._service

    def _has_failed(self) -> bool:
        if self.scheduler.restless > RESTLESS:
            self.events.fail("the service is busy without end", self._told_tasks())
        return self.events.failure is not None

    def _advance(self, when: float) -> None:
        passes = when - self._clock.now > ROUNDING
        if passes and self._is_up and not self._is_stopping and not self._is_lost:
            self._audit.look(self._living, self.checks.life, self._trouble.calm)

    def _told_tasks(self) -> str:
        waiting = [f"{t.name} for {t.waits_for}" for t in self.scheduler.tasks if not t.is_done]
        return f"waiting: {', '.join(waiting) or 'none'}"
