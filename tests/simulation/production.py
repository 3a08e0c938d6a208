"""All that the simulation knows of the real code's insides: how it is started, watched and looked into."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import pykka

import actors
from actors.errors import GoferError, IllegalMove
from actors.handlers import Handlers
from actors.lifecycle import Job, Status
from actors.messages import Claim, Outcome
from actors.messaging import Channel, Reply
from actors.store import (
    attempts,
    backlog,
    batch,
    checkpoints,
    database,
    jobstore,
    ledger,
    life,
    suspicion,
    waiting,
)
from actors.store.schema import COUNT, COUNTED
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


class Service:
    """One life of the service, and a view of its insides."""

    def __init__(self, plan: Plan, handlers: Handlers, lost: Callable[[], None]) -> None:
        self._settings = actors.Settings(
            database=DATABASE,
            workers=plan.workers,
            capacity=plan.capacity,
            capacity_delayed=plan.capacity,
            keep_finished=plan.keep,
            keep_failed=plan.keep,
            keep_seconds=5.0 if plan.keep == 1 else 0.0,
            max_retries=plan.max_retries,
            on_crash="fail" if plan.at_most_once else "retry",
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
    def counts(self) -> dict[str, int]:
        """How many jobs there are of each kind, and their bytes, as the service keeps it in mind."""
        totals = self._store._ledger._database.totals
        jobs = {f"{kind}_jobs": number for kind, number in totals.jobs.items() if number}
        return jobs | {f"{kind}_bytes": size for kind, size in totals.bytes.items() if size}

    @property
    def unfinished(self) -> int:
        """How many jobs are pending or processing."""
        pending: int = self._store._ledger.pending
        return pending + int(self._store._ledger.counts[Status.PROCESSING])

    @property
    def running(self) -> set[str]:
        """The jobs that run, as the service keeps it in mind."""
        return set(self._store._ledger._runs._runs)

    @property
    def has_kept(self) -> bool:
        """Whether there are outcomes that could not be stored yet; claims that wait are no trouble."""
        return any(not isinstance(entry.message, Claim) for entry in self._store._kept._entries)

    @property
    def is_between_batches(self) -> bool:
        """Whether the JobStore has nothing in hand and nothing to do."""
        store = self._store
        return not (store._batch.entries or self.connection.in_transaction or store.actor_inbox.own)

    @property
    def has_mail(self) -> bool:
        """Whether the JobStore has messages that it has not taken out."""
        return bool(self._store.actor_inbox.own)

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection to the database."""
        connection: sqlite3.Connection = self._store._ledger._database._connection
        return connection

    @property
    def delivers(self) -> bool:
        """Whether jobs are handed out."""
        return self.system._channel.is_open and not self.system.interrupts.is_draining

    def has_due(self, then: float) -> bool:
        """Tell whether there is a job in the channel without a delay, or one that was due before `then`."""
        channel = self.system._channel
        return bool(channel._immediate or (channel._delayed and channel._delayed[0][0] < then))

    @property
    def queued(self) -> set[str]:
        """The jobs in the channel, and the suspects that wait for their turn."""
        suspicion = self._store._ledger._attempts.suspicion
        suspects = {*suspicion.alone, *(job.id for job in suspicion._waiting)}
        channel = self.system._channel
        messages = [message for _, message in channel._immediate]
        messages += [message for _, _, message, _ in channel._delayed]
        return suspects | {message.id for message in messages if hasattr(message, "id")}

    @property
    def is_all_queued(self) -> bool:
        """Whether no job is left to a later page."""
        return self._store._backlog._immediate is None and self._store._backlog._delayed is None

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

    def table(self) -> dict[str, int]:
        """Count the same in the table."""
        _finish, *counted = self.connection.execute(COUNT).fetchone()
        return {name: number for name, number in zip(COUNTED, counted, strict=True) if number}


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
        )
        return [Row(f"{number:016x}", Status(status), *rest) for number, status, *rest in found]
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        connection.close()
        vfs.disk = disk


def forget_processes() -> None:
    """Forget the actors of killed processes, and a lock that one of them may hold."""
    pykka.ActorRegistry._actor_refs = []
    pykka.ActorRegistry._actor_refs_lock = RLock()  # type: ignore[assignment]


Began = Callable[[Job], Callable[[Outcome], None]]


@contextlib.contextmanager
def watched(plan: Plan, disk: Disk, began: Began, reach: Callable[[str], None]) -> Iterator[None]:
    """Set the sizes, tell of each run of a handler, and of what is reached inside."""
    with (
        patch.object(life, "boot", lambda: f"boot {disk.boots}"),
        patch.object(Worker, "_outcome", _observed(Worker._outcome, began)),
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
    ]


def _observed(run: Callable[[Worker, Job], Outcome], began: Began) -> Callable[[Worker, Job], Outcome]:
    def observed(worker: Worker, job: Job) -> Outcome:
        ended = began(job)
        outcome = run(worker, job)
        ended(outcome)
        return outcome

    return observed


#: A method, and the situation that a call of it is, if what the function says of its arguments is true.
Probe = tuple[type[Any], str, Callable[..., str | None]]


def _rolled_back(store: jobstore.JobStore, _error: BaseException) -> str:
    kinds = {type(entry.message) for entry in store._batch.entries}
    return "a batch rolled back with a claim in it" if Claim in kinds else "a batch rolled back"


def _awaits_answered(store: jobstore.JobStore, *, awaits: bool) -> str | None:
    return "an await answered at a stop" if awaits and store._awaits._count else None


PROBES: Final[tuple[Probe, ...]] = (
    (jobstore.JobStore, "_roll_back", _rolled_back),
    (jobstore.JobStore, "_give_up", lambda *_: "the storage is broken"),
    (jobstore.JobStore, "_keep", lambda *_: "a message kept for later"),
    (waiting.Awaits, "_sweep", lambda *_: "awaits swept"),
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
    (attempts.Attempts, "_claim_alone", lambda *_: "a suspect that must run alone"),
    (Channel, "clear", lambda channel: "a channel emptied to be read again" if channel.is_open else None),
    (IllegalMove, "__init__", lambda *_: "an illegal move refused"),
    (Reply, "give_up", lambda *_: "an asker that has given up"),
    (jobstore.JobStore, "_bring_back", _awaits_answered),
)


@contextlib.contextmanager
def _probe(
    owner: type[Any], name: str, situation: Callable[..., str | None], reach: Callable[[str], None]
) -> Iterator[None]:
    real = getattr(owner, name)

    def probed(*values: Any, **named: Any) -> Any:
        if reached := situation(*values, **named):
            reach(reached)
        return real(*values, **named)

    with patch.object(owner, name, probed):
        yield
