"""Retention: which finished jobs are deleted, and how many at a time."""

from typing import Final

from actors.lifecycle import FINISHED
from actors.store.database import Database

#: Finished jobs deleted per job that finishes: more than one, so that a lowered limit is reached in time.
DELETED_AT_ONCE: Final = 4


class Retention:
    """Keeps at most `keep` finished jobs, the last that finished; 0 keeps all."""

    def __init__(self, database: Database, keep: int) -> None:
        self._database = database
        self._keep = keep

    def delete_old(self, finished: int) -> None:
        """Make room after `finished` more jobs have finished. Raises sqlite3.Error."""
        kept = sum(self._database.counts[status] for status in FINISHED)
        if self._keep and kept > self._keep:
            self._database.delete_oldest_finished(min(kept - self._keep, DELETED_AT_ONCE * finished))
