"""The pace: how long attempts of each type took lately."""

from typing import Final

#: Types that are remembered, at most; then all are forgotten, and learnt again.
MOST_TYPES: Final = 1000
#: What one quick attempt counts in the mean. A slow one counts fully: it may be followed by more.
WEIGHT: Final = 0.125


class Pace:
    """Seconds by type, as Workers say with each outcome."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def note(self, job_type: str, seconds: float) -> None:
        """Note how long one attempt took."""
        if len(self._seconds) >= MOST_TYPES:
            self._seconds.clear()
        before = self._seconds.get(job_type, seconds)
        self._seconds[job_type] = max(seconds, before + (seconds - before) * WEIGHT)

    def seconds(self, job_type: str) -> float | None:
        """Return about how long the next one will take; None if that is not known."""
        return self._seconds.get(job_type)
