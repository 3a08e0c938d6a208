"""How the master judges the signs of life that a worker process gives.

Gunicorn ends a process whose last sign is older than its `timeout`. If all of the service was frozen for as
long (a paused container, SIGSTOP), no sign is fresh when it wakes up, and a master that looks first ends a
process that is well. A master that has itself not looked for a while, though it does so every second, takes
that for such a sleep, and looks again when the process has had time for a sign.
"""

import time
from collections.abc import Callable
from typing import Final

from api.server import Master

#: Seconds between two looks that show a sleep, and those that a process then has.
ASLEEP: Final = 2.0
PATIENCE: Final = 4.0


class Watch:
    """The looks of one master."""

    def __init__(self, master: Master, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._end_the_silent = master.murder_workers
        self._last = self._awake = monotonic()
        master.murder_workers = self.look

    def look(self) -> None:
        """End the process that has long given no sign."""
        before, self._last = self._last, self._monotonic()
        if self._last - before > ASLEEP:
            self._awake = self._last + PATIENCE
        if self._last >= self._awake:
            self._end_the_silent()
