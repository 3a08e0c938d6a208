"""How a worker process leaves: its listeners, gunicorn's loop and the process, and what is said of that."""

import asyncio
import logging
import os
import signal
from typing import Final

from gunicorn.arbiter import Arbiter

from api.server import Worker

#: Seconds that threads which handlers have left behind may keep the process.
LEFT_BEHIND: Final = 2.0


def is_serving(worker: Worker) -> bool:
    """Tell whether it accepts connections, or has done so."""
    return len(worker.servers) == len(worker.sockets)


def accept_no_more(worker: Worker) -> None:
    """Leave new connections to the next process."""
    for server in worker.servers:
        server.close()
    # Reopening log files, this one's meaning, ends with the loop; after that it would kill.
    worker.loop.remove_signal_handler(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, pass_over)


def end_serving(worker: Worker) -> None:
    """Have gunicorn wait for the connections that are left, and close them behind their next answer."""
    worker.handle_exit_signal()
    if is_serving(worker):
        # Once it serves, gunicorn looks only every second whether it should stop; a cancel wakes it up.
        for task in asyncio.all_tasks(worker.loop):
            if getattr(task.get_coro(), "__name__", "") == "_serve":
                task.cancel()


def pass_over(_signum: int, _frame: object) -> None:
    """Do nothing at a signal; unlike one that is ignored, the commands that handlers start still get it."""


def leave_within(seconds: float, code: int) -> None:
    """End this process even if something that is not ours to stop would keep it."""
    signal.signal(signal.SIGALRM, lambda *_: os._exit(code))
    signal.setitimer(signal.ITIMER_REAL, seconds)


def is_news(record: logging.LogRecord) -> bool:
    """Tell whether gunicorn's line says more than the one that a failed boot has left already."""
    line = record.getMessage()
    is_old = line.endswith(f"exited with code {Arbiter.WORKER_BOOT_ERROR}.") or line.startswith(
        ("Shutting down: ", "Reason: ")
    )
    return record.levelno != logging.ERROR or not is_old
