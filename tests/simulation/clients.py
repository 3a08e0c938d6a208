"""The clients, and the handlers of the jobs that they submit."""

import random
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Final

import pykka

from actors.errors import (
    CapacityReached,
    Draining,
    GoferError,
    JobDeleted,
    JobNotFound,
    OutcomeInDoubt,
    StorageFailed,
)
from actors.handlers import Handlers, handler
from actors.lifecycle import FINISHED, Job
from actors.messages import Await, Cancel, Get, ListJobs, Ping, Retry, Submit
from actors.messaging import OutcomeUnknown, Unanswered
from actors.work.task import ExecutorFailed
from tests.simulation.book import Answer, Book, Request, Story
from tests.simulation.checks import Checks
from tests.simulation.events import Events
from tests.simulation.faults import Kind, Plan
from tests.simulation.production import Service
from tests.simulation.scheduler import Scheduler, current

#: How likely a job brings the process down, if some do.
DEADLY: Final = 0.05
#: What a handler waits for.
STEP: Final = "a step"
#: Seconds that a client thinks before it does the next thing.
THINKING: Final = (0, 0, 0, 0, 0.01, 0.3)
#: How likely a client submits, if there is something else that it could do; and if it mostly looks.
SUBMITTING, LOOKING = 0.5, 0.06
#: How likely it repeats a submit under its key.
REPEATING: Final = 0.05
#: Seconds that a step of a handler takes, and how many there are.
STEPPING: Final = (0, 0.001, 0.05, 1)
STEPS: Final = (0, 0, 1, 3, 20)

End = Callable[[dict[str, Any]], Any]


def handlers(kill: Callable[[], None]) -> Handlers:
    """Return the handlers: two that yield, one with a time limit, and one that cannot be interrupted."""
    end = partial(_result, kill, set())
    steps, plain = partial(_steps, end), partial(_plain, end)
    limited = handler(timeout=2.5, backoff=0.2)(steps)
    return Handlers({"steps": steps, "quick": steps, "limited": limited, "plain": plain})


def _steps(end: End, payload: dict[str, Any]) -> Generator[float | None, None, Any]:
    for step in range(payload["steps"]):
        current().scheduler.block(payload["seconds"], STEP)
        yield (step + 1) / (payload["steps"] + 1)
    return end(payload)


def _plain(end: End, payload: dict[str, Any]) -> Any:
    current().scheduler.block(payload["steps"] * payload["seconds"], STEP)
    return end(payload)


def _result(kill: Callable[[], None], lost: set[int], payload: dict[str, Any]) -> Any:
    """End as the payload says; some are lost, once in a life, as by an executor."""
    match payload["end"]:
        case "raise" | "exit" if payload["n"] % 3 == 0 and payload["n"] not in lost:
            lost.add(payload["n"])
            raise ExecutorFailed("lost")
        case "raise":
            raise ValueError("as it was told")
        case "exit":
            raise SystemExit(1)
        case "nonsense":
            return float("nan")
        case "kill":
            kill()
    return {"n": payload["n"], "padding": "y" * payload["padding"]}


class Clients:
    """Asks for everything that can be asked for, and writes down what is answered."""

    def __init__(
        self, plan: Plan, scheduler: Scheduler, *, book: Book, checks: Checks, events: Events
    ) -> None:
        self._plan = plan
        self._chance = random.Random(f"clients {plan.seed}")
        self._scheduler = scheduler
        self._book = book
        self._checks = checks
        self._events = events
        #: How much they still do.
        self.left = plan.steps
        #: Whether answers may be other than usual: the service stops, or its storage failed.
        self.is_excused: Callable[[], bool] = lambda: False
        #: Asks without an answer.
        self.waiting: dict[int, object] = {}
        self._asked = 0

    def live(self, service: Service, life: int) -> None:
        """Do one thing after the other while that life lasts."""
        while self.left > 0 and life == self._checks.life and self._events.failure is None:
            self.left -= 1
            self._scheduler.block(self._chance.choice(THINKING), "a thought")
            try:
                self._act(service)
            except pykka.ActorDeadError:
                return

    def _act(self, service: Service) -> None:
        chance = self._chance
        if self._plan.has(Kind.PING) and chance.random() < 0.05:
            self._ping(service)
        if self._plan.has(Kind.LATE) and self._checks.told and chance.random() < 0.1:
            late = chance.choice(self._checks.told[-10:])
            self._events.note(f"{type(late).__name__} of {late.id}, attempt {late.attempt}, is told again")
            service.system.store.tell(late)
            return
        keyed = [story for story in self._book.stories if story.may_be_repeated]
        if keyed and chance.random() < REPEATING:
            self._repeat(service, chance.choice(keyed[-8:]))
            return
        known = [story for story in self._book.stories if story.id is not None]
        if not known or chance.random() < (LOOKING if self._plan.has(Kind.QUIET) else SUBMITTING):
            self._submit(service)
            return
        story = chance.choice(known[-8:] if chance.random() < 0.7 else known)
        chance.choice(self._actions())(service, story)

    def _actions(self) -> list[Callable[[Service, Story], None]]:
        actions: list[Callable[[Service, Story], None]] = [self._get, self._get, self._list]
        for kind, action in (
            (Kind.AWAIT, self._await),
            (Kind.CANCEL, self._cancel),
            (Kind.RETRY, self._retry),
        ):
            if self._plan.has(kind):
                actions += [action, action]
        return actions

    def _ask(self, service: Service, message: object, seconds: float | None = None) -> Any:
        self._asked += 1
        number = self._asked
        self.waiting[number] = message
        try:
            return service.system.store.ask(message, timeout=seconds)
        except StorageFailed as error:
            if not self.is_excused():
                self._events.fail("the storage fails without a fault", f"{type(message).__name__}: {error}")
            raise
        finally:
            del self.waiting[number]

    # What they ask for.

    def _submit(self, service: Service) -> None:
        number, clock = len(self._book.stories), self._scheduler.clock
        story = Story(number, self._message(number), clock.now, clock.forward, self._checks.life)
        self._book.add(story)
        seconds = 0.005 if self._plan.has(Kind.IMPATIENT) and self._chance.random() < 0.2 else None
        try:
            job = self._ask(service, story.once or story.submit, seconds)
            job = job if story.once is None else job.jobs
        except (OutcomeInDoubt, OutcomeUnknown):
            story.answer = Answer.UNKNOWN
        except (StorageFailed, CapacityReached, Draining, Unanswered, pykka.ActorDeadError) as refusal:
            story.answer = Answer.NO
            self._events.note(f"job {story.number} is refused: {type(refusal).__name__}")
            if isinstance(refusal, pykka.ActorDeadError):
                raise
        else:
            story.answer, story.job, story.acknowledged = Answer.YES, job, self._events.count
            story.answered_at = clock.now
            self._events.note(f"job {story.number} is accepted as {job.id}")
            if story.id not in (None, job.id):
                self._events.fail("a job has two ids", f"job {story.number}: {story.id} and {job.id}")
            if self._book.by_id.get(job.id, story) is not story:
                self._events.fail("an id is given to a second job", f"{job.id} to job {story.number}")
            self._book.know(story, job.id)

    def _repeat(self, service: Service, story: Story) -> None:
        """Submit a job again under its key: it is the same job, or if nothing was stored the first."""
        self._events.note(f"job {story.number} is submitted again")
        was_known = story.answer is Answer.YES or story.id is not None
        try:
            again = self._ask(service, story.once)
        except JobDeleted:
            self._miss(story, "a repeat")
            return
        except (CapacityReached, Draining) as refusal:
            if was_known:
                self._events.fail("a repeat is refused", f"job {story.number}: {refusal}")
            story.answer = Answer.NO
            return
        except (StorageFailed, Unanswered):
            return
        job = again.jobs
        self._events.note(
            f"job {story.number} is {job.id}, {'again' if again.is_replayed else 'for the first time'}"
        )
        if story.id not in (None, job.id) or (was_known and not again.is_replayed):
            self._events.fail("one key is two jobs", f"job {story.number}: {story.id} and {job.id}")
        self._events.reach("a job repeated" if again.is_replayed else "a job stored by a repeat")
        if story.answer is not Answer.YES:
            story.answer, story.acknowledged = Answer.YES, self._events.count
            story.answered_at = self._scheduler.clock.now
        self._book.know(story, job.id)

    def _message(self, number: int) -> Submit:
        chance = self._chance
        ends = ("return",) * 4 + ("raise", "exit", "nonsense") if self._plan.has(Kind.FAIL) else ("return",)
        is_deadly = self._plan.has(Kind.DEADLY) and chance.random() < DEADLY
        job_type = chance.choice(("steps", "quick", "quick", "quick", "limited", "plain"))
        payload = {
            "n": number,
            "end": "kill" if is_deadly else chance.choice(ends),
            "steps": chance.choice(STEPS[:4] if job_type == "quick" else STEPS),
            "seconds": chance.choice(STEPPING[:2] if job_type == "quick" else STEPPING),
            "padding": chance.choice((0, 0, 10, 9000)),
            "ballast": "z" * chance.choice((0, 0, 0, 2000, 20_000)),
        }
        delay = chance.choice((0, 0, 0.5, 5, 100)) if self._plan.has(Kind.DELAY) else 0
        return Submit(job_type, payload, max_retries=chance.choice((None, 0, 2)), delay=delay)

    def _get(self, service: Service, story: Story) -> None:
        self._look(service, story, Get(str(story.id)))

    def _await(self, service: Service, story: Story) -> None:
        seconds = self._chance.choice((0.01, 5, None))
        job = self._look(service, story, Await(str(story.id)), seconds)
        if job is not None and job.status not in FINISHED and not self.is_excused():
            self._events.fail("an await is answered too soon", f"job {story.number} is {job.status}")

    def _look(
        self, service: Service, story: Story, message: Get | Await, seconds: float | None = None
    ) -> Job | None:
        self._events.note(f"{type(message).__name__} of job {story.number}")
        since, retried, is_settled = self._events.count, story.retried, story.is_settled
        try:
            job: Job = self._ask(service, message, seconds)
        except JobNotFound:
            self._miss(story, type(message).__name__)
            return None
        except (StorageFailed, Unanswered):
            return None
        self._events.note(f"job {story.number} is shown as {job.status} in {job.attempts}")
        self._checks.saw(story, job, since=since, retried=retried, is_settled=is_settled)
        return job

    def _list(self, service: Service, _story: Story) -> None:
        since = self._events.count
        try:
            jobs = self._ask(service, ListJobs())
        except StorageFailed:
            return
        ids = [job.id for job in jobs]
        if ids != sorted(set(ids)):
            self._events.fail("a list is out of order", str(ids))
        known = {s.id for s in self._book.stories if s.answer is Answer.YES and s.acknowledged < since}
        if missing := sorted(str(one) for one in known - set(ids)):
            for job_id in missing[:1]:
                self._miss(self._book.by_id[job_id], "a list")

    def _miss(self, story: Story, asked: str) -> None:
        if not (self._plan.has(Kind.KEEP) and (story.is_spent or story.may_have_finished)):
            self._events.fail("a job cannot be found", f"job {story.number} in {asked}")

    def _cancel(self, service: Service, story: Story) -> None:
        self._change(service, story, Cancel(str(story.id)), story.cancels)

    def _retry(self, service: Service, story: Story) -> None:
        self._change(service, story, Retry(str(story.id)), story.retries)

    def _change(
        self, service: Service, story: Story, message: Cancel | Retry, requests: list[Request]
    ) -> None:
        self._events.note(f"{type(message).__name__} of job {story.number}")
        request = Request(sent=self._events.count)
        requests.append(request)
        try:
            request.job = self._ask(service, message)
            request.answer = Answer.YES
        except OutcomeInDoubt:
            request.answer = Answer.UNKNOWN
        except (GoferError, pykka.ActorDeadError) as refusal:
            request.answer = Answer.NO
            if isinstance(refusal, pykka.ActorDeadError):
                raise
        finally:
            self._events.note(f"{type(message).__name__} of job {story.number}: {request.answer.name}")
            request.answered = self._events.count

    def _ping(self, service: Service) -> None:
        for ref in list(service.system.workers):
            if ref.is_alive():
                ref.ask(Ping(), block=False)
