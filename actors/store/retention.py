"""Retention: which finished jobs are deleted, and how many at a time."""

from datetime import datetime, timedelta
from typing import Final

from actors.lifecycle import Status
from actors.settings import Settings
from actors.store.moves import Moves
from actors.store.totals import Totals

#: Finished jobs deleted per job that finishes: more than one, so that a lowered limit is reached in time.
DELETED_AT_ONCE: Final = 4
#: Jobs that one step of `delete_expired` deletes, at most, and their bytes, about: it holds up all others.
EXPIRED_AT_ONCE: Final = 500
EXPIRED_BYTES: Final = 16 * 1024 * 1024


class Retention:
    """Keeps the jobs that finished last: so many, so many bytes, so many seconds; 0 sets no limit.

    Failed jobs are kept apart, so that no number of successes evicts the failure that somebody looks for;
    and while they take at most half of the bytes, too many bytes are too many of the others.
    """

    def __init__(self, totals: Totals, moves: Moves, settings: Settings) -> None:
        self._totals = totals
        self._moves = moves
        self._settings = settings

    def delete_old(self, finished: int) -> None:
        """Make room after `finished` more jobs have finished. Raises sqlite3.Error."""
        most = DELETED_AT_ONCE * finished
        settings = self._settings
        for failed, keep in ((False, settings.keep_finished), (True, settings.keep_failed)):
            excess = self._jobs(failed=failed) - keep
            if keep and excess > 0:
                self._moves.delete_oldest(min(excess, most), failed=failed)
        while settings.keep_bytes and most and self._excess_bytes() > 0:
            self._moves.delete_oldest(1, failed=self._has_large_failures())
            most -= 1

    def delete_expired(self, now: datetime) -> bool:
        """Delete some of the jobs that are too old; tell whether more may be left. Raises sqlite3.Error."""
        by = now - timedelta(seconds=self._settings.keep_seconds)
        is_more_left = False
        for failed in (False, True):
            average = self._bytes(failed=failed) // (self._jobs(failed=failed) or 1) + 1
            limit = max(1, min(EXPIRED_AT_ONCE, EXPIRED_BYTES // average))
            is_more_left |= self._moves.delete_oldest(limit, failed=failed, by=by) == limit
        return is_more_left

    def _excess_bytes(self) -> int:
        return self._bytes(failed=False) + self._bytes(failed=True) - self._settings.keep_bytes

    def _has_large_failures(self) -> bool:
        return 2 * self._bytes(failed=True) > self._settings.keep_bytes or not self._jobs(failed=False)

    def _jobs(self, *, failed: bool) -> int:
        return _of(self._totals.jobs, failed=failed)

    def _bytes(self, *, failed: bool) -> int:
        return _of(self._totals.bytes, failed=failed)


def _of(totals: dict[str, int], *, failed: bool) -> int:
    return totals[Status.FAILED] if failed else totals[Status.COMPLETED] + totals[Status.CANCELLED]
