"""Forks: what a process that a handler forks lets go of.

It inherits every descriptor, and with these a lock outlives its owner, a port stays busy and a client never
sees the end of its connection. A descriptor is not closed there but made one of `/dev/null`: its number stays
taken, so that no object of the parent's can ever close, or write to, what the child opens itself.
"""

import contextlib
import os
import weakref
from collections.abc import Callable


def in_child(method: Callable[[], None]) -> None:
    """Call the method in each fork of this process; that keeps nothing alive, as it is never forgotten."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        if alive := reference():
            alive()

    os.register_at_fork(after_in_child=call)


def let_go(is_meant: Callable[[int], bool]) -> None:
    """Let go of the descriptors that are meant, in a child."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - numbers
        with contextlib.suppress(OSError):  # The one of the listing itself is gone.
            if is_meant(int(name)):
                os.dup2(null, int(name), inheritable=False)
    os.close(null)
