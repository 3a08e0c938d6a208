"""The life of the process that owns the database: what the next one has to know of its end.

With the first signal to stop it leaves a mark. Whatever ends it then, by us or by a SIGKILL after too short a
grace, has cut its jobs off: they did not bring it down. The same holds for a process of before a reboot.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

#: Another after each boot of the machine, on Linux; elsewhere no reboot is noticed.
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

Write = Callable[[str, tuple[object, ...]], sqlite3.Cursor]


def boot() -> str:
    """Return what tells this boot of the machine from others; "" if nothing does."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


class Life:
    """The one row of `life`. Its methods raise sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection, write: Write) -> None:
        """Read how the last process ended; `write` does so in the open transaction."""
        self._write = write
        self._boot = boot()
        is_stopping, last_boot = connection.execute("SELECT is_stopping, boot FROM life").fetchone()
        #: Whether the last process was cut off, and did not crash by itself.
        self.was_cut_off = bool(is_stopping) or "" != last_boot != self._boot

    def begin(self) -> None:
        """Note that a process is running."""
        self._write("UPDATE life SET is_stopping = 0, boot = ?", (self._boot,))

    def stop(self) -> None:
        """Note that this process was told to stop."""
        self._write("UPDATE life SET is_stopping = 1", ())
