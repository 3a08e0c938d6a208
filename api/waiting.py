"""Waiting for the database of another process: it costs no CPU, and ends with the master.

The wait is one system call, `flock`. A signal that comes just before that call would be acted on only after
it, and the end of the master would not be noticed at all; so a timer ends the call now and then, after which
Python goes on with it, unless a handler of a signal has raised SystemExit.
"""

import os
import signal
import sys
from typing import Final

import actors
from actors.store import Ownership

#: Seconds between two looks whether the master is still there.
LOOK: Final = 1.0


class Stopped(BaseException):
    """A stop signal has come before anything was made; not an Exception, which code of handlers may catch."""


def own(database: str, master: int) -> Ownership | None:
    """Take the lock of the database, or wait for it. Raises SystemExit if this master is no longer there."""

    def look(_signum: int, _frame: object) -> None:
        if os.getppid() != master:
            sys.exit(0)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, LOOK, LOOK)
    try:
        return actors.own(database, wait=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
