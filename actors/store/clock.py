"""The JobStore's clock: wall time, and what becomes of delays when somebody sets the clock back.

A job's `run_at` is wall time. What is in the channel waits by the monotonic clock, which no one can set, but
most of very many delayed jobs are only in the database. When the wall clock is set back by an hour, what they
say would come an hour late. So their `run_at` is moved by as much, in the same transaction as the first use
of the new time; no `run_at` of before is ever compared with one of after. A clock that is set forward needs
nothing: jobs may be early by that.

Between two looks at the wall clock `steady` goes on by the monotonic clock, so it agrees with every `run_at`
in the database, whatever happened to the wall clock meanwhile.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

#: Seconds by which the wall clock may fall behind between two looks, as it does when it is slowed down.
JUMP: Final = 1.0


class Clock:
    """Used in the JobStore's thread alone."""

    def __init__(self, now: Callable[[], datetime], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._monotonic = monotonic
        #: The wall time when the monotonic clock stood at 0, as of the last look, and of the last commit.
        self._origin = self._durable = now().timestamp() - monotonic()

    def look(self) -> tuple[datetime, float]:
        """Return the wall time, and by how many seconds it was set back since the last look."""
        now = self._now()
        before, self._origin = self._origin, now.timestamp() - self._monotonic()
        back = before - self._origin
        return now, round(back, 6) if back > JUMP else 0.0  # As exact as times are kept.

    def steady(self) -> datetime:
        """Return the time as the last look had it, and what has passed since."""
        return datetime.fromtimestamp(self._origin + self._monotonic(), UTC)

    def commit(self) -> None:
        """Note that what followed from the last look is durable."""
        self._durable = self._origin

    def rollback(self) -> None:
        """Forget the looks since the last commit, as what followed from them is undone."""
        self._origin = self._durable
