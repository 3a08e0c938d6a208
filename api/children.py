"""What a process that a handler forks has of the service: no signal handlers and no sockets.

With the service's handlers its `terminate()` would do nothing, and with the listening socket the next start
would find the port in use. (A command that a handler starts needs none of this: `exec` resets handlers and
closes all our descriptors. Only an ignored signal would stay ignored, so the service ignores none.)
"""

import os
import signal
import socket
import stat
import threading
from typing import Any, Final

from actors import forks

#: All for which gunicorn or the service has a handler.
HANDLED: Final = (
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGURG,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
    signal.SIGABRT,
    signal.SIGALRM,
)


class Children:
    """The forks of a process that listens on these sockets.

    Signals wait while it forks: one that came to a child before it has its own handlers would get lost.
    """

    def __init__(self, sockets: list[Any]) -> None:
        self._parent = os.getpid()
        self._addresses = [listening.getsockname() for listening in sockets]
        #: What each forking thread blocks otherwise.
        self._masks: dict[int, set[signal.Signals]] = {}
        os.register_at_fork(before=self._hold, after_in_child=self._begin, after_in_parent=self._release)

    def _hold(self) -> None:
        if os.getpid() == self._parent:  # A child's child has what the child has made of it.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, *HANDLED))
            self._masks[threading.get_ident()] = {signal.Signals(number) for number in before}

    def _release(self) -> None:
        if os.getpid() == self._parent:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.pop(threading.get_ident()))

    def _begin(self) -> None:
        mask = self._masks.pop(threading.get_ident(), None)
        if mask is None:
            return
        for signum in HANDLED:
            signal.signal(signum, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(-1)  # Of the event loop; what the child gets would wake the parent.
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        forks.let_go(self._is_ours)

    def _is_ours(self, descriptor: int) -> bool:
        """Tell whether it is a listening socket, or a client's connection, which has the same address."""
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
        held = socket.socket(fileno=descriptor)
        try:
            return held.getsockname() in self._addresses
        finally:
            held.detach()
