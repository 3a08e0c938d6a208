"""The moves: how each is written, at what time, and what follows from it after the commit."""

from datetime import datetime

from msgspec import Raw

from actors import log
from actors.lifecycle import FINISHED, Job, Status
from actors.messages import Outcome
from actors.store.changes import Changes, Move
from actors.store.clock import Clock
from actors.store.database import Database, Past


class Moves:
    """Writes moves in the open transaction. Its methods raise sqlite3.Error."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._now: datetime | None = None
        self.changes = Changes()

    def look(self) -> datetime:
        """Return the time of this commit.

        If the clock was set back, all that waits for it is moved first (see clock.py).
        """
        if self._now is not None:
            return self._now
        now, back = self._clock.look()
        if back:
            log.logger("JobStore").warning("the wall clock was set back", seconds=round(back, 3))
            self._database.set_back(back)
            self.changes.set_back(back)
        self._now = now
        return now

    def look_again(self) -> datetime:
        """Return the time now, for what is timed from now on: a commit may take long to come."""
        self.look()
        return self._clock.steady()

    def submit(self, job: Job, payload: Raw) -> None:
        """Add a new job."""
        self._database.insert(job, payload)
        self.changes.bytes += len(payload)
        self.changes.runnable.append(job)
        self.changes.moves.append(Move(None, job))

    def write(
        self,
        before: Job,
        after: Job,
        past: Past,
        *,
        payload: int | None = None,
        cause: Outcome | str | None = None,
    ) -> None:
        """Write a move (see Database.update), and note why, and what it leads to: another run, or the end."""
        self.changes.moves.append(Move(before, after, cause))
        # SQLite writes the whole row again.
        self.changes.bytes += self._database.update(before, after, past, payload=payload)
        if after.status is Status.PENDING:
            self.changes.runnable.append(after)
        if after.status in FINISHED:
            self.changes.finished.append(after)

    def delete_oldest(self, limit: int, *, failed: bool, by: datetime | None = None) -> int:
        """Delete the jobs that finished first (see Database.delete_oldest); return how many."""
        deleted = self._database.delete_oldest(limit, failed=failed, by=by)
        self.changes.deleted += deleted
        return len(deleted)

    def commit(self) -> Changes:
        """Make them durable, and return what follows."""
        self.changes.wrote = self._database.commit()
        self._clock.commit()
        self._now = None
        changes, self.changes = self.changes, Changes()
        return changes

    def rollback(self) -> None:
        """Forget all since the last commit."""
        self.changes, self._now = Changes(), None
        self._clock.rollback()
        self._database.rollback()
