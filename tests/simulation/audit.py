"""What must hold whenever time passes, as then nothing is under way that could still put it right."""

from typing import Final

from actors.lifecycle import Status
from tests.simulation.book import Book
from tests.simulation.events import Events
from tests.simulation.faults import Kind, Plan
from tests.simulation.production import Service, Waiting
from tests.simulation.scheduler import Scheduler, Task

#: Seconds by which a Worker may be late for a delayed job, if it may be paused before it begins to wait.
LATE: Final = 2.0
ROUNDING: Final = 1e-6
#: Seconds by which the wall clock falls back before that counts as set.
JUMPS: Final = 2.0
#: Seconds for which a message may be kept though the disk has space: a few slow syncs.
KEPT: Final = 20.0


class Audit:
    """Looks into a running service between two moments."""

    def __init__(self, plan: Plan, scheduler: Scheduler, book: Book, events: Events) -> None:
        self._scheduler = scheduler
        self._late = LATE if plan.has(Kind.PAUSE) else ROUNDING
        self._book = book
        self._events = events
        self._life = 0
        #: How many Workers wait for a job.
        self._idle = 0

    def look(self, service: Service, life: int, calm: float) -> None:
        """Note what is wrong, when the disk has been well for `calm` seconds."""
        if self._scheduler.paused or service.failure is not None:
            return
        self._life = life
        tasks = [task for task in self._scheduler.tasks if not task.is_done]
        is_store_idle = any(service.is_store_idle(task) for task in tasks)
        if is_store_idle and service.has_mail:
            self._events.fail("time passes although the JobStore has messages", "in its mailbox")
        if is_store_idle and service.has_due(self._scheduler.clock.now - self._late):
            self._events.fail("time passes although a job is due", "and the JobStore idle")
        self._idle = sum(service.is_idle(task) for task in tasks)
        if self._idle and service.delivers and service.sent:
            self._events.fail("time passes although a job is sent and a Worker idle", str(service.sent))
        if service.has_kept and calm > KEPT:
            self._events.fail("what was kept is not tried again", f"the disk is well for {calm:.1f} s")
        if is_store_idle and service.is_between_batches:
            self._count(service)
            if not service.has_kept:
                self._look_at_running(service, life)
            if not service.has_kept and service.delivers:
                self._look_at_reserved(service, tasks)
                self._look_at_pending(service)

    def _count(self, service: Service) -> None:
        self._events.reach("an audit")
        table = service.table()
        if table != service.counts:
            self._events.fail("the counts differ from the table", f"{service.counts} and {table}")

    def _look_at_running(self, service: Service, life: int) -> None:
        rows = service.rows(Status.PROCESSING)
        if rows != service.running:
            self._events.fail("what runs differs from the table", f"{service.running} and {rows}")
        begun = {str(s.id) for s in self._book.stories if s.runs and s.runs[-1].end is None}
        if not begun <= rows:
            self._events.fail("a job runs that is not processing", str(sorted(begun - rows)))
        for job_id in sorted(rows):
            story = self._book.by_id.get(job_id)
            run = story.runs[-1] if story and story.runs else None
            is_over = run is not None and run.life == life and run.end is not None
            if run is not None and is_over and self._scheduler.clock.now > run.ended_at:
                self._events.fail("a job is processing that no Worker has", f"{job_id} ended: {run.end}")

    def _look_at_reserved(self, service: Service, tasks: list[Task]) -> None:
        """What is reserved is in the file, and in the channel, or a Worker has just taken it there."""
        reserved, sent = service.reserved, service.sent
        if reserved != service.stored:
            self._events.fail("what is reserved differs from the file", f"{reserved} and {service.stored}")
        if len(set(sent)) < len(sent) or not set(sent) <= reserved.keys():
            self._events.fail("a job is sent that is not reserved, or twice", f"{sent}, reserved: {reserved}")
        workers = sum(task.name.startswith("Worker") for task in tasks)
        missing = sorted(reserved.keys() - sent)
        if len(missing) > workers - self._idle:
            self._events.fail("a reserved job is nowhere", f"{missing}, {self._idle} Workers are idle")
        if sum(reserved.values()) > workers:
            self._events.fail("more jobs count as begun than there are Workers", str(reserved))

    def _look_at_pending(self, service: Service) -> None:
        """What is pending and not left to a later page is kept in mind; what can run is reserved."""
        pending, queued = service.pending(), service.queued
        missing = [job.id for job in pending if not job.is_past_a_mark and job.id not in queued]
        if missing:
            self._events.fail("a pending job is nowhere", str(missing))
        if self._idle and not service.is_held_up and (service.line & {job.id for job in pending}):
            self._events.fail("time passes although a job waits and a Worker is idle", "in the line")
        for job in pending:
            self._look_at_wait(job)

    def _look_at_wait(self, job: Waiting) -> None:
        """No delay becomes longer because a clock is set."""
        story = self._book.by_id.get(job.id)
        if story is None or story.life != self._life or story.answered_at is None or job.run_at is None:
            return
        if story.runs or story.retries:
            return
        if job.run_at > story.answered_at + story.submit.delay + JUMPS:
            self._events.fail("a delay has become longer", f"job {story.number} would run at {job.run_at}")
