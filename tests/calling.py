"""A JobStore, built but not started: messages are handled by calling it, and time is a variable."""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from actors.handlers import simulated
from actors.interrupts import Interrupts
from actors.lifecycle import Job, claimed, submitted
from actors.messages import Begin, Drain, Due, RecoverCrashed, Resume, Run, Submit
from actors.messaging.channel import Channel
from actors.messaging.mailbox import Delivery
from actors.messaging.reply import Reply
from actors.settings import Settings
from actors.store.backlog import Backlog
from actors.store.clock import Clock
from actors.store.database import Database
from actors.store.jobstore import JobStore
from actors.store.ledger import Ledger
from actors.store.schema import COUNT, COUNTED
from actors.store.vitals import Vitals

EMAIL = Submit("email", {"to": "user@example.com"})


def run(job_id: str, job_type: str = "email") -> Run:
    """Return what the JobStore sends to the Workers for such a job."""
    job = submitted(job_id, job_type, datetime(2026, 1, 1, tzinfo=UTC))
    return Run(claimed(replace(job, raw_payload=Raw(b"{}")), job.created_at))


class Store:
    """A JobStore that one calls."""

    def __init__(
        self, path: str = ":memory:", ended: Callable[..., None] = lambda **_: None, **options: Any
    ) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        #: How far the wall clock is ahead of where it was at the start, by the monotonic one.
        self.jumped = timedelta(0)
        self.clock = Clock(lambda: self.now + self.jumped, self.seconds)
        self.database = Database(path)
        #: The error code that every commit ends with.
        self.fail_writes: int | None = None
        self.database.commit = self.commit  # type: ignore[method-assign]
        #: Where the JobStore waits for what is delayed, and where Workers would receive.
        self.delayed = Channel(monotonic=self.seconds, wall=self.wall)
        self.channel = Channel(monotonic=self.seconds)
        #: Jobs that were taken out of the channel.
        self.taken: dict[str, Job] = {}
        self.interrupts = Interrupts()
        handlers, chance = options.pop("handlers", simulated(0)), options.pop("chance", lambda: 1.0)
        self.settings = Settings(**{"workers": 256} | options)
        self.ledger = Ledger(
            self.database, self.interrupts, self.channel, handlers, self.settings, self.clock, chance=chance
        )
        backlog = Backlog(self.database, self.delayed, self.clock.steady)
        self.actor = JobStore(self.ledger, backlog, self.delayed, self.channel, Vitals(), ended=ended)
        inbox = self.actor.actor_inbox
        inbox.collect = lambda: None  # type: ignore[method-assign]
        inbox.wait_for_ask = lambda seconds: bool(inbox.own)  # type: ignore[method-assign]  # noqa: ARG005

    def __del__(self) -> None:
        self.database.close()

    def commit(self) -> bool:
        """Commit, or fail as SQLite would."""
        database = self.database
        has_written = database._inserts or database._moves or database._connection.in_transaction
        if self.fail_writes is not None and has_written:
            raise failure(self.fail_writes)
        return Database.commit(self.database)

    def seconds(self) -> float:
        return self.now.timestamp()

    def wall(self) -> float:
        return (self.now + self.jumped).timestamp()

    def send(self, message: Any) -> Reply[Any]:
        """Handle the message as pykka's loop would, and return the reply that its asker holds."""
        reply: Reply[Any] = Reply()
        reply.set(self.actor.on_receive(message))
        return reply

    def ask(self, message: Any) -> Any:
        return self.send(message).get(timeout=0)

    def delivered(self) -> list[str]:
        """Take everything that the Workers would receive."""
        self.let_due()
        ids = []
        while isinstance(message := self.channel.take(), Run):
            ids.append(message.id)
            self.taken[message.id] = message.job
        return ids

    def let_due(self) -> None:
        """Handle what has become due, as the JobStore does when its mailbox hands it out."""
        while isinstance(message := self.delayed.take(), Due):
            self.send(message)

    def claim(self, job_id: str) -> Any:
        """Begin this job as the Worker does that takes it out of the channel; None if it is not there."""
        job = self.take(job_id)
        if job is not None:
            self.send(Begin(job.id, job.attempts))
        return job

    def take(self, job_id: str) -> Any:
        """Take this job out of the channel, and tell nobody yet."""
        self.let_due()
        for run in self.channel.withdraw(lambda run: run.id == job_id):  # type: ignore[attr-defined]
            assert isinstance(run, Run)
            self.taken[job_id] = run.job
        return self.taken.pop(job_id, None)

    def more_is_waiting(self, is_waiting: bool) -> None:
        """Put something into the mailbox, so that a batch stays open, or take it out."""
        if is_waiting:
            self.actor.actor_inbox.put(Delivery(Drain()))
        else:
            self.actor.actor_inbox.get()

    def crash(self, *, cut_off: bool = False) -> None:
        """Go on as the next process would, after a crash or a stop that cut its jobs off."""
        self.forget()
        self.database.life.was_cut_off = cut_off
        self.recover()

    def recover(self) -> int:
        """Begin with what is in the database, as the next process does."""
        self.actor._backlog = Backlog(self.database, self.delayed, self.clock.steady)
        for channel in (self.channel, self.delayed):
            channel.withdraw(lambda message: isinstance(message, Run | Due))
        self.taken.clear()
        pending: int = self.ask(RecoverCrashed())
        return pending

    def drain(self, *, admits: bool = False) -> None:
        """Begin a drain, as the wiring does."""
        self.interrupts.drain(0, admits=admits)
        self.channel.close()
        self.send(Drain(answers_awaits=not admits))

    def forget(self) -> None:
        """Know nothing of what runs, as the next process does."""
        runs, life = self.ledger._runs, self.database.life
        life.reserved = {job_id: run.is_certain for job_id, run in runs.reserved.items()}
        runs.reserved, runs.begun, runs._durable = {}, {}, ({}, {})

    def let_time_pass(self, seconds: float) -> None:
        """Let time pass, and handle what the JobStore was to be reminded of then."""
        self.now += timedelta(seconds=seconds)
        while (message := self.delayed.take()) is not None:
            self.send(message)

    def resume(self) -> None:
        """Let the time pass after which it tries again what it could not store."""
        self.now += timedelta(seconds=1)
        self.send(Resume())

    def fill_disk(self) -> Callable[[], object]:
        """Let every write that needs a new page fail with SQLITE_FULL; return what undoes that."""
        connection = self.database._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return lambda: connection.execute("PRAGMA max_page_count = 1073741823")


def assert_totals(database: Database) -> None:
    """See that the totals are those of the jobs in the table."""
    columns = ", ".join(COUNTED.values())
    found = database._read(f"SELECT {columns} FROM jobs", ()).fetchone()
    totals = database.totals
    assert dict(zip(COUNTED, found, strict=True)) == {
        **{f"{kind}_jobs": number for kind, number in totals.jobs.items()},
        **{f"{kind}_bytes": size for kind, size in totals.bytes.items()},
    }


def assert_census(store: Store) -> None:
    """See that the counts by type are those of the jobs in the table."""
    counted = {
        (name, str(status)): jobs
        for name, tally in store.ledger.census._tallies.items()
        for status, jobs in tally.jobs.items()
        if jobs
    }
    assert counted == {(name, status): jobs for name, status, jobs in store.database.count_types()}


def count_again(database: Database) -> None:
    """Set the totals of a table that was filled behind the Database's back."""
    database._connection.execute("DELETE FROM totals")
    database._connection.execute(f"INSERT INTO totals {COUNT}")


def failure(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError(f"error {code}")
    error.sqlite_errorcode = code
    return error


def is_answered(reply: Reply[Any]) -> bool:
    return reply._outcome is not None
