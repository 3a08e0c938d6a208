"""The clocks of the simulated machine: seconds that pass when the scheduler says so."""

from datetime import UTC, datetime
from typing import Final

#: What the wall clock showed when the monotonic one showed zero.
EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


class Clock:
    """A monotonic clock, and a wall clock that can be set."""

    def __init__(self) -> None:
        #: Seconds of the monotonic clock.
        self.now = 1000.0
        #: When the wall clock was set, and by how many seconds it was ahead from then on.
        self._settings = [(0.0, 0.0)]

    def wall(self) -> float:
        """Return what the wall clock shows, in seconds since 1970."""
        return EPOCH + self.now + self._settings[-1][1]

    def set_forward(self, seconds: float) -> None:
        """Set the wall clock forward; back, if that is negative."""
        self._settings.append((self.now, self._settings[-1][1] + seconds))

    def catch_up(self) -> None:
        """Set the wall clock forward to where it would be, had it never been set back."""
        self._settings.append((self.now, max(ahead for _, ahead in self._settings)))

    def latest_since(self, then: float) -> float:
        """Return what the wall clock would show, had it not been set back since that monotonic time."""
        before = max(place for place, (when, _) in enumerate(self._settings) if when <= then)
        return EPOCH + self.now + max(ahead for _, ahead in self._settings[before:])
