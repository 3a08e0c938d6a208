"""The totals: how many jobs there are of each kind, and how many bytes they keep.

They are one row, written in each commit. To count at a start instead would take longer the more jobs there
are; and a stop that leaves them behind is no help after a crash.
"""

import sqlite3
from collections.abc import Mapping
from typing import Final

from actors.lifecycle import Job, Status

#: A pending job that has a `run_at` is of a kind of its own, until it is claimed.
DELAYED: Final = "delayed"
KINDS: Final = (*Status, DELAYED)
#: The columns of the one row, in this order.
COLUMNS: Final = ("finish", *(f"{kind}_jobs" for kind in KINDS), *(f"{kind}_bytes" for kind in KINDS))
READ: Final = f"SELECT {', '.join(COLUMNS)} FROM totals"
WRITE: Final = f"UPDATE totals SET {', '.join(f'{column} = ?' for column in COLUMNS)}"


def kind(job: Job) -> str:
    """Return the kind that the job is counted under."""
    return DELAYED if job.run_at is not None and job.status is Status.PENDING else job.status


class Totals:
    """Jobs and bytes by kind, with what is not committed yet."""

    def __init__(self, connection: sqlite3.Connection, *, are_kept: bool) -> None:
        """Read what the last commit left. Raises sqlite3.Error.

        They `are_kept` with each commit, or not in memory, where nobody would read them.
        """
        self._connection = connection
        self._are_kept = are_kept
        finish, *numbers = connection.execute(READ).fetchone()
        #: The number of the last finish, which orders the finished jobs: no clock can change it.
        self.finish: int = finish
        self.jobs: dict[str, int] = dict(zip(KINDS, numbers[: len(KINDS)], strict=True))
        self.bytes: dict[str, int] = dict(zip(KINDS, numbers[len(KINDS) :], strict=True))
        self.committed()

    def add(self, kind: str, size: int, jobs: int = 1) -> None:
        """Count so many more jobs of this kind, with `size` bytes in all; fewer, if they are negative."""
        self.jobs[kind] += jobs
        self.bytes[kind] += size

    def write(self) -> None:
        """Put them into the open transaction. Raises sqlite3.Error."""
        if self._are_kept:
            self._connection.execute(WRITE, (self.finish, *self.jobs.values(), *self.bytes.values()))

    def committed(self) -> None:
        """Note that they are durable."""
        self._durable = self.finish, self.jobs.copy(), self.bytes.copy()

    @property
    def durable(self) -> Mapping[str, int]:
        """The jobs by kind as of the last commit, never changed; from any thread."""
        return self._durable[1]

    def rollback(self) -> None:
        """Forget what was not committed."""
        self.finish, jobs, size = self._durable
        self.jobs.update(jobs)
        self.bytes.update(size)
