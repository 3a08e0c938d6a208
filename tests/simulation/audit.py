"""What must hold whenever time passes, as then nothing is under way that could still put it right."""

from typing import Final

from actors.lifecycle import Status
from tests.simulation.book import Book
from tests.simulation.events import Events
from tests.simulation.faults import Kind, Plan
from tests.simulation.production import Service
from tests.simulation.scheduler import Scheduler, Task

#: Seconds by which a Worker may be late for a delayed job, if it may be paused before it begins to wait.
LATE: Final = 2.0
ROUNDING: Final = 1e-6
#: Seconds for which a message may be kept though the disk has space: a few slow syncs.
KEPT: Final = 20.0


class Audit:
    """Looks into a running service between two moments."""

    def __init__(self, plan: Plan, scheduler: Scheduler, book: Book, events: Events) -> None:
        self._scheduler = scheduler
        self._late = LATE if plan.has(Kind.PAUSE) else ROUNDING
        self._book = book
        self._events = events

    def look(self, service: Service, life: int, calm: float) -> None:
        """Note what is wrong, when the disk has been well for `calm` seconds."""
        if self._scheduler.paused or service.failure is not None:
            return
        tasks = [task for task in self._scheduler.tasks if not task.is_done]
        is_store_idle = any(service.is_store_idle(task) for task in tasks)
        if is_store_idle and service.has_mail:
            self._events.fail("time passes although the JobStore has messages", "in its mailbox")
        has_idle = any(service.is_idle(task) for task in tasks)
        if has_idle and service.delivers and service.has_due(self._scheduler.clock.now - self._late):
            self._events.fail("time passes although a job is due and a Worker idle", "in the channel")
        if service.has_kept and calm > KEPT:
            self._events.fail("what was kept is not tried again", f"the disk is well for {calm:.1f} s")
        if is_store_idle and service.is_between_batches:
            self._count(service)
            if not service.has_kept:
                self._look_at_running(service, life)
                self._look_at_pending(service, tasks)

    def _count(self, service: Service) -> None:
        self._events.reach("an audit")
        table = service.table()
        if table != service.counts:
            self._events.fail("the counts differ from the table", f"{service.counts} and {table}")

    def _look_at_running(self, service: Service, life: int) -> None:
        rows = service.rows(Status.PROCESSING)
        if rows != service.running:
            self._events.fail("what runs differs from the table", f"{service.running} and {rows}")
        for job_id in sorted(rows):
            story = self._book.by_id.get(job_id)
            run = story.runs[-1] if story and story.runs else None
            is_over = run is not None and run.life == life and run.end is not None
            if run is not None and is_over and self._scheduler.clock.now > run.ended_at:
                self._events.fail("a job is processing that no Worker has", f"{job_id} ended: {run.end}")

    def _look_at_pending(self, service: Service, tasks: list[Task]) -> None:
        """What is pending and not left to a later page is in the channel, or with a Worker about to claim."""
        if not (service.delivers and service.is_all_queued):
            return
        missing = service.rows(Status.PENDING) - service.queued
        busy = [t for t in tasks if t.name.startswith("Worker") and not service.is_idle(t)]
        if len(missing) > len(busy):
            self._events.fail("a pending job is nowhere", f"{sorted(missing)}, {len(busy)} Workers are busy")
