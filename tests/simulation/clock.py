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
        #: Seconds by which the wall clock is ahead, as it was set.
        self.ahead = 0.0
        #: By how much it was set forward, all together; what was set back is not taken away.
        self.forward = 0.0

    def wall(self) -> float:
        """Return what the wall clock shows, in seconds since 1970."""
        return EPOCH + self.now + self.ahead

    def set_forward(self, seconds: float) -> None:
        """Set the wall clock forward; back, if that is negative."""
        self.ahead += seconds
        self.forward += max(0.0, seconds)

    def catch_up(self) -> None:
        """Set the wall clock forward to where it would be, had it never been set back."""
        self.set_forward(self.forward - self.ahead)
