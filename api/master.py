"""What gunicorn's master does differently: how it takes signals, before and after it forks."""

import contextlib
import os
import signal
from functools import partial
from typing import Final

from api.server import Master

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
#: What a master that is being replaced by another one (SIGUSR2) sends to its worker: the stop that comes next
#: is to be a hand-over.
IS_REPLACED: Final = signal.SIGUSR2


def hold_stop_signals() -> None:
    """Let stop signals wait, in a new worker until it can act on them: before that they would get lost.

    In the master they wait only while it forks (see `release_after_fork`).
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def release_after_fork() -> None:
    """Have the master take stop signals again as soon as it has forked."""
    master = os.getpid()

    def release() -> None:
        if os.getpid() == master:  # Not when a worker forks: it may have reason to block them.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    os.register_at_fork(after_in_parent=release)


def stop_gracefully_at_each_signal() -> None:
    """Make SIGINT and SIGQUIT a SIGTERM: at those gunicorn may kill a running job after 2 seconds."""
    for signum in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(signum, lambda *_: os.kill(os.getpid(), signal.SIGTERM))


def keep_one_worker(master: Master) -> None:
    """Have the signals that change the number of workers change nothing."""
    refusal = "gofer: there can be only one worker process; SIGTTIN and SIGTTOU are ignored"
    master.handle_ttin = master.handle_ttou = partial(master.log.error, refusal)


def announce_replacement(master: Master) -> None:
    """Tell the process that serves now that another master, with a process of its own, waits for its stop."""
    for pid in master.WORKERS:
        with contextlib.suppress(ProcessLookupError):  # It may have just ended by itself.
            os.kill(pid, IS_REPLACED)
