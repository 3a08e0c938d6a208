"""The totals: how many jobs have each status.

They are kept in memory, and written at the end, so that the next start need not count. One after a crash
counts once, in an index: to write them with each commit would cost every job more than that.
"""

import sqlite3

from actors.lifecycle import Status


class Totals:
    """The counts with what is not committed yet, and how they were at the last commit."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Read what the last end left, or count. Raises sqlite3.Error, or KeyError for an unknown status."""
        self._connection = connection
        left = connection.execute("SELECT status, jobs FROM totals").fetchall()
        #: Whether those of the last end are still in the file; the first commit takes them away.
        self.are_left = bool(left)
        if not left:
            left = connection.execute("SELECT status, count(*) FROM jobs GROUP BY status").fetchall()
        self.counts = dict.fromkeys(Status, 0)
        self.counts.update({Status(status): number for status, number in left})
        #: How they were at the last commit.
        self.durable = self.counts.copy()

    def withdraw(self) -> None:
        """Take those of the last end away, in the open transaction, as it makes them untrue."""
        self._connection.execute("DELETE FROM totals")

    def save(self) -> None:
        """Leave them to the next start, in a transaction of their own. Raises sqlite3.Error."""
        rows = ", ".join(f"('{status}', {number})" for status, number in self.durable.items())
        self._connection.execute(f"INSERT OR REPLACE INTO totals VALUES {rows}")

    def rollback(self) -> None:
        """Forget what was not committed."""
        self.counts.update(self.durable)
