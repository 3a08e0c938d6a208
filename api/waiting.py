"""Waiting for the database of another process, at no cost of CPU.

The wait is one system call, `flock`. A signal that comes just before that call would be acted on only after
it, and the end of the master would not be noticed at all; so a timer ends the call now and then, after which
Python goes on with it, unless a handler of a signal has raised something.
"""

import signal
from collections.abc import Callable
from typing import Final

import actors
from actors.store import Ownership

#: Seconds until the first look around, when it is clear that there is an owner, and between two.
FIRST: Final = 0.05
LOOK: Final = 1.0


class Stopped(BaseException):
    """A stop signal has come before anything was made; not an Exception, which code of handlers may catch."""


def own(database: str, look: Callable[[], None]) -> Ownership | None:
    """Take the lock of the database; while it has an owner, wait and `look` now and then, which may raise."""
    signal.signal(signal.SIGALRM, lambda *_: look())
    signal.setitimer(signal.ITIMER_REAL, FIRST, LOOK)
    try:
        return actors.own(database, wait=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
