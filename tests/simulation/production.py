"""All that the simulation knows of the real code's insides: how it is started, watched and looked into."""

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final, NamedTuple, Protocol
from unittest.mock import patch

import pykka

import actors
from actors import lifecycle
from actors.errors import GoferError, IllegalMove
from actors.handlers import Handlers
from actors.lifecycle import ALONE, Job, Status
from actors.messages import Begin, Drain, Due, Message, Outcome, Run
from actors.messaging import Reply
from actors.store import (
    attempts,
    backlog,
    batch,
    checkpoints,
    database,
    jobstore,
    ledger,
    life,
    reservations,
    room,
    runs,
    suspicion,
    waiting,
)
from actors.store.schema import SIZE
from actors.store.totals import DELAYED
from actors.system import NEXT_YIELD, System
from actors.work.worker import Worker
from tests.simulation.disk import Disk
from tests.simulation.faults import Plan
from tests.simulation.scheduler import Task
from tests.simulation.threads import RLock
from tests.simulation.vfs import Vfs

DATABASE: Final = "/jobs.db"
#: What is said of a job that is taken for the cause of crashes, and of one that may run only once.
CONVICTED: Final = "the process crashed during each of"
AT_MOST_ONCE: Final = "(GOFER_ON_CRASH=fail)"
#: Of each job what is counted.
EACH_JOB: Final = f"SELECT type, status, run_at IS NOT NULL, {SIZE} FROM jobs"
NOT_STORED: Final = "the outcome could not be stored"


class Row(NamedTuple):
    """A job as the file has it."""

    id: str
    status: Status
    attempts: int
    max_retries: int
    last_error: str | None
    payload: str
    result: str | None
    #: Whether it counts as begun, if it is reserved; None if it is not.
    is_certain: bool | None

    @property
    def is_cut_short(self) -> bool:
        """Whether the next process takes it for one that was running, or may have been."""
        return self.status is Status.PROCESSING or self.is_certain is not None

    @property
    def begun(self) -> int:
        """How many attempts it has with the one that is reserved, which may have begun."""
        return self.attempts + (self.is_certain is not None)


class Waiting(NamedTuple):
    """A pending job as the table has it, and whether a later page of the backlog will hold it."""

    id: str
    run_at: float | None
    is_past_a_mark: bool


class Service:
    """One life of the service, and a view of its insides."""

    def __init__(
        self, plan: Plan, handlers: Handlers, lost: Callable[[], None], *, at_most_once: bool
    ) -> None:
        self._settings = actors.Settings(
            database=DATABASE,
            workers=plan.workers,
            capacity=plan.capacity,
            capacity_delayed=plan.capacity,
            keep_finished=plan.keep,
            keep_failed=plan.keep,
            keep_seconds=5.0 if plan.keep == 1 else 0.0,
            max_retries=plan.max_retries,
            on_crash="fail" if at_most_once else "retry",
        )
        self._handlers = handlers
        self._lost = lost
        self._system: System | None = None
        #: Why it did not start.
        self.refusal: GoferError | None = None

    def start(self) -> None:
        """Start it, in a task of its own."""
        try:
            self._system = System(self._settings, self._handlers, None, None, self._lost)
        except GoferError as refusal:
            self.refusal = refusal

    def stop(self, grace: float) -> None:
        """Stop it, in a task of its own."""
        self.system.stop(grace)

    def waiting(self, grace: float) -> float:
        """Return for how many seconds a stop waits for jobs that run."""
        return grace + NEXT_YIELD

    @property
    def system(self) -> System:
        """The running actors."""
        assert self._system is not None
        return self._system

    @property
    def _store(self) -> Any:
        return self.system.unchecked_store._actor_weakref()

    @property
    def failure(self) -> BaseException | None:
        """What has ended the JobStore."""
        failure: BaseException | None = self._store._failure
        return failure

    @property
    def counts(self) -> dict[Any, int]:
        """How many jobs of each kind and type there are, and their bytes, as the service keeps it in mind."""
        totals = self._store._ledger._database.totals
        jobs = {f"{kind}_jobs": number for kind, number in totals.jobs.items() if number}
        tallies = self._store._ledger.census._tallies.items()
        types = {(name, str(s)): n for name, tally in tallies for s, n in tally.jobs.items() if n}
        return jobs | {f"{kind}_bytes": size for kind, size in totals.bytes.items() if size} | types

    @property
    def unfinished(self) -> int:
        """How many jobs are pending or processing."""
        pending: int = self._store._ledger.pending
        return pending + int(self._store._ledger.counts[Status.PROCESSING])

    @property
    def running(self) -> set[str]:
        """The jobs that have begun, as the service keeps it in mind."""
        return set(self._runs.begun)

    @property
    def reserved(self) -> dict[str, bool]:
        """The reserved jobs, and whether they count as begun, as the service keeps it in mind."""
        return {job_id: run.is_certain for job_id, run in self._runs.reserved.items()}

    @property
    def stored(self) -> dict[str, bool]:
        """The same in the table, but for what the process before has left, while that is not recovered."""
        (text,) = self.connection.execute("SELECT reserved FROM life").fetchone()
        earlier = self._store._ledger._database.life.reserved.keys() - self.reserved.keys()
        return {
            job_id: is_certain for job_id, is_certain in json.loads(text).items() if job_id not in earlier
        }

    @property
    def _runs(self) -> runs.Runs:
        found: runs.Runs = self._store._ledger._runs
        return found

    @property
    def has_kept(self) -> bool:
        """Whether there is what could not be stored yet."""
        return bool(self._store._kept._entries)

    @property
    def is_between_batches(self) -> bool:
        """Whether the JobStore has nothing in hand and nothing to do."""
        store = self._store
        return not (store._batch.entries or self.connection.in_transaction or store.actor_inbox.own)

    @property
    def has_mail(self) -> bool:
        """Whether the JobStore has messages that it is to take out now; while it lingers, only asks are."""
        inbox = self._store.actor_inbox
        return any(envelope.reply_to or not inbox._is_patient for envelope in inbox.own)

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection to the database."""
        connection: sqlite3.Connection = self._store._ledger._database._connection
        return connection

    @property
    def delivers(self) -> bool:
        """Whether jobs are handed out."""
        return self.system._channel.is_open and not self.system.interrupts.is_draining

    @property
    def sent(self) -> list[str]:
        """The jobs in the channel."""
        return [message.id for _, message in self.system._channel._immediate if hasattr(message, "id")]

    def has_due(self, then: float) -> bool:
        """Tell whether a message for the JobStore was due before `then`, if it does not linger."""
        inbox = self._store.actor_inbox
        delayed = inbox._channel._delayed
        return bool(delayed and delayed[0][0] < then and not inbox._is_patient)

    @property
    def is_held_up(self) -> bool:
        """Whether jobs wait although a Worker is idle: for a suspect, or until the storage is well again."""
        suspicion = self._store._ledger._reservations.suspicion
        is_suspected = bool(suspicion.alone) or any(run.past.crashes for run in self._runs)
        return not self._store._reserves or is_suspected or self._is_alone_next

    @property
    def _is_alone_next(self) -> bool:
        """Whether the first in the line must run alone, as its executor cut it off when it did before."""
        first = self._store._backlog._line[0] if self._store._backlog._line else None
        found: Any = first and self._store._ledger._database.find(first.id)
        return bool(found) and found[1].crashes >= ALONE

    @property
    def line(self) -> set[str]:
        """The jobs in the backlog's line."""
        return {due.id for due in self._store._backlog._line}

    @property
    def queued(self) -> set[str]:
        """All that is kept in mind: reserved, in the line, delayed, and suspects that wait their turn."""
        suspicion = self._store._ledger._reservations.suspicion
        suspects = {*suspicion.alone, *(job.id for job in suspicion._waiting)}
        delayed = {
            message.id
            for _, _, message, _ in self._store.actor_inbox._channel._delayed
            if isinstance(message, Due)
        }
        return suspects | delayed | self.line | self.reserved.keys()

    def pending(self) -> list[Waiting]:
        """Return the pending jobs in the table."""
        marks = self._store._backlog
        delayed = marks._delayed and (round(marks._delayed[0].timestamp() * 1e6), marks._delayed[1])
        found = []
        for number, run_at in self.connection.execute("SELECT id, run_at FROM jobs WHERE status = 'pending'"):
            job_id = f"{number:016x}"
            if run_at is None:
                is_past = marks._immediate is not None and job_id > marks._immediate
                found.append(Waiting(job_id, None, is_past))
            else:
                is_past = delayed is not None and (run_at, job_id) > delayed
                found.append(Waiting(job_id, run_at / 1e6 - self._origin, is_past))
        return found

    @property
    def _origin(self) -> float:
        """The wall time when the monotonic clock stood at 0, as the JobStore takes it."""
        origin: float = self._store._ledger._moves._clock._origin
        return origin

    def is_idle(self, task: Task) -> bool:
        """Tell whether the task is a Worker that waits for a job."""
        return task.name.startswith("Worker") and task.waits_for is self.system._channel.changed

    def is_store_idle(self, task: Task) -> bool:
        """Tell whether the task is the JobStore's and waits for a message."""
        waits_for = self._store.actor_inbox._channel.changed
        return task.name.startswith("JobStore") and task.waits_for is waits_for

    def rows(self, status: Status) -> set[str]:
        """Return the jobs with that status in the table."""
        found = self.connection.execute("SELECT id FROM jobs WHERE status = ?", (status,))
        return {f"{number:016x}" for (number,) in found}

    def table(self) -> dict[Any, int]:
        """Count the same in the table."""
        counts: Counter[Any] = Counter()
        for job_type, status, is_delayed, size in self.connection.execute(EACH_JOB):
            kind = DELAYED if is_delayed and status == Status.PENDING else status
            counts.update({f"{kind}_jobs": 1, f"{kind}_bytes": size, (job_type, status): 1})
        return {name: number for name, number in counts.items() if number}


def rows(vfs: Vfs, disk: Disk) -> list[Row] | str:
    """Return all jobs that the next process would find on the disk, or what is damaged there."""
    copy = disk.copy()
    if DATABASE not in copy.files:
        return []
    vfs.disk = copy
    connection = sqlite3.connect(DATABASE, isolation_level=None)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        (damage,) = connection.execute("PRAGMA quick_check").fetchone()
        if damage != "ok":
            return str(damage)
        if not connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'jobs'").fetchone()[0]:
            return []
        found = connection.execute(
            "SELECT id, status, attempts, max_retries, last_error, payload, result FROM jobs ORDER BY id"
        ).fetchall()
        reserved = json.loads(connection.execute("SELECT reserved FROM life").fetchone()[0])
        return [_row(reserved, *values) for values in found]
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        connection.close()
        vfs.disk = disk


def _row(reserved: dict[str, bool], number: int, status: str, *rest: Any) -> Row:
    job_id = f"{number:016x}"
    is_certain = reserved.get(job_id) if status == Status.PENDING else None
    attempts, most, error, payload, result = rest
    return Row(job_id, Status(status), attempts, most, error, payload, result, is_certain)


def forget_processes() -> None:
    """Forget the actors of killed processes, and a lock that one of them may hold."""
    pykka.ActorRegistry._actor_refs = []
    pykka.ActorRegistry._actor_refs_lock = RLock()  # type: ignore[assignment]


class Watcher(Protocol):
    """What is told of each step of a job."""

    def reserved(self, job: Job) -> None:
        """A job is reserved."""

    def began(self, job: Job, *, is_stored: bool) -> Callable[[Outcome], None]:
        """A handler's run begins; the file says so, or that it is reserved. Returns what is told the end."""


class File:
    """What the file says of the jobs that may begin, as of the last commit."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._reserved: dict[str, bool] = {}
        self._running: set[tuple[int, int]] = set()

    def read(self, connection: sqlite3.Connection) -> None:
        """Read it; the disk has no trouble meanwhile."""
        before, self._disk.before = self._disk.before, lambda _operation, _name: None
        try:
            (text,) = connection.execute("SELECT reserved FROM life").fetchone()
            self._reserved = json.loads(text)
            running = connection.execute("SELECT id, attempts FROM jobs WHERE status = 'processing'")
            self._running = set(running.fetchall())
        finally:
            self._disk.before = before

    def lets_begin(self, job: Job) -> bool:
        """Tell whether a crash now would find that the attempt had perhaps begun."""
        return job.id in self._reserved or (int(job.id, 16), job.attempts) in self._running


@contextlib.contextmanager
def watched(plan: Plan, disk: Disk, watcher: Watcher, reach: Callable[[str], None]) -> Iterator[None]:
    """Set the sizes, tell of each step of a job, and of what is reached inside."""
    file = File(disk)
    with (
        patch.object(life, "boot", lambda: f"boot {disk.boots}"),
        patch.object(Worker, "_outcome", _observed(Worker._outcome, watcher, file)),
        patch.object(database.Database, "commit", _read_after(database.Database.commit, file)),
        patch.object(runs.Runs, "reserve", _told(runs.Runs.reserve, watcher)),
        contextlib.ExitStack() as probes,
    ):
        for module, name, size in _sizes(plan):
            probes.enter_context(patch.object(module, name, size))
        for owner, name, situation in PROBES:
            probes.enter_context(_probe(owner, name, situation, reach))
        yield


def _sizes(plan: Plan) -> list[tuple[ModuleType, str, int]]:
    """Return the constants of the real code that a plan changes."""
    return [
        (backlog, "PAGE", plan.sizes.page),
        (backlog, "AGAIN", plan.sizes.again),
        (backlog, "MOST", plan.sizes.most),
        (batch, "BATCH", plan.batch),
        (checkpoints, "PAGES", plan.checkpoint),
        (database, "MOST_ROWS", plan.rows),
        (room, "MOST_EACH", plan.ahead),
    ]


def _observed(
    outcome_of: Callable[[Worker, Run], Outcome], watcher: Watcher, file: File
) -> Callable[[Worker, Run], Outcome]:
    def observed(worker: Worker, run: Run) -> Outcome:
        ended = watcher.began(run.job, is_stored=file.lets_begin(run.job))
        outcome = outcome_of(worker, run)
        ended(outcome)
        return outcome

    return observed


def _read_after(
    commit: Callable[[database.Database], bool], file: File
) -> Callable[[database.Database], bool]:
    def committed(store: database.Database) -> bool:
        wrote = commit(store)
        if wrote:
            file.read(store._connection)
        return wrote

    return committed


def _told(reserve: Callable[..., int], watcher: Watcher) -> Callable[..., int]:
    def reserved(kept: runs.Runs, job: Job, past: database.Past, *, is_certain: bool) -> int:
        watcher.reserved(job)
        return reserve(kept, job, past, is_certain=is_certain)

    return reserved


#: A method, and the situation that a call of it is, if what the function says of its arguments is true.
Probe = tuple[Any, str, Callable[..., str | None]]


def _rolled_back(store: jobstore.JobStore, _error: BaseException, **_: bool) -> str:
    if store._ledger._reservations._taken_back:
        return "what was taken out of the channel put back"
    kinds = {type(entry.message) for entry in store._batch.entries}
    return "a batch rolled back with a beginning in it" if Begin in kinds else "a batch rolled back"


def _awaits_answered(store: jobstore.JobStore, message: Message) -> str | None:
    is_answered = isinstance(message, Drain) and message.answers_awaits and len(store._awaits)
    return "an await answered at a stop" if is_answered else None


def _taken_back(kept: reservations.Reservations, job_id: str) -> str | None:
    return "a reserved job cancelled" if job_id in kept.runs.reserved else None


def _told_late(kept: attempts.Attempts, outcome: Outcome) -> str | None:
    return "an outcome tells that a job had begun" if outcome.id in kept._runs.reserved else None


def _all_taken_back(kept: reservations.Reservations) -> str | None:
    return "reserved jobs taken back at a stop" if kept.runs.reserved else None


PROBES: Final[tuple[Probe, ...]] = (
    (jobstore.JobStore, "_roll_back", _rolled_back),
    (jobstore.JobStore, "_give_up", lambda *_: "the storage is broken"),
    (jobstore.JobStore, "_keep", lambda *_: "a message kept for later"),
    (waiting.Awaits, "sweep", lambda *_: "awaits swept"),
    (database.Database, "delete_oldest", lambda *_, **__: "finished jobs deleted"),
    (database.Database, "mark_unwanted", lambda *_: "a cancel of a running job"),
    (
        database.Database,
        "immediate",
        lambda _, after, limit: "a further page of the backlog read" if int(after, 16) and limit else None,
    ),
    (ledger.Ledger, "_recover_crashed", lambda *_: "a recovery"),
    (database.Database, "set_back", lambda *_: "the clock set back under waiting jobs"),
    (suspicion.Suspicion, "wait", lambda *_: "a suspect that waits"),
    (
        reservations.Reservations,
        "_alone",
        lambda kept: "a suspect that must run alone" if kept.suspicion.alone else None,
    ),
    (backlog.Backlog, "_start_again", lambda *_: "a line emptied to be read again"),
    (IllegalMove, "__init__", lambda *_: "an illegal move refused"),
    (Reply, "give_up", lambda *_: "an asker that has given up"),
    (jobstore.JobStore, "_bring_back", _awaits_answered),
    (reservations.Reservations, "take_back", _taken_back),
    (reservations.Reservations, "take_all_back", _all_taken_back),
    (attempts.Attempts, "_run", _told_late),
    (
        runs.Runs,
        "reserve",
        lambda *_, is_certain: None if is_certain else "a job reserved ahead of the Workers",
    ),
    (lifecycle, "perhaps_begun", lambda *_, **__: "a job that had perhaps begun"),
)


@contextlib.contextmanager
def _probe(
    owner: Any, name: str, situation: Callable[..., str | None], reach: Callable[[str], None]
) -> Iterator[None]:
    real = getattr(owner, name)

    def probed(*values: Any, **named: Any) -> Any:
        if reached := situation(*values, **named):
            reach(reached)
        return real(*values, **named)

    with patch.object(owner, name, probed):
        yield
