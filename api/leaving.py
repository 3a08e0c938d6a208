"""How a worker process ends when all that is Gofer's has been stopped, and what is said of that."""

import logging
import os
import signal
from typing import Final

from gunicorn.arbiter import Arbiter

#: Seconds that threads which handlers have left behind may keep the process.
LEFT_BEHIND: Final = 2.0


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
