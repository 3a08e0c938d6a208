"""How long running jobs may still go on once the service is to stop."""

import math
import time
from collections.abc import Callable


class Grace:
    """Endless until it begins; after that, over when its seconds have passed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = math.inf

    def begin(self, seconds: float) -> None:
        """Let running jobs go on for so many seconds; a later call can only shorten that."""
        self._end = min(self._end, self._clock() + seconds)

    @property
    def is_over(self) -> bool:
        """Whether a running job has to be given back at its next yield."""
        return self._clock() >= self._end
