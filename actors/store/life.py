"""The life of the process that owns the database: what the next one has to know of its end.

Its reservations are the jobs that it has sent to the channel. They stand here in one text and not with the
jobs, as they come and go with each commit.

With the first signal to stop it leaves a mark. Whatever ends it then, by us or by a SIGKILL after too short a
grace, has cut its jobs off: they did not bring it down. The same holds for a process of before a reboot.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

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

    def __init__(self, connection: sqlite3.Connection, write: Write, *, is_kept: bool = True) -> None:
        """Read how the last process ended; `write` does so in the open transaction.

        Its reservations are not written if it is not kept. Raises msgspec.DecodeError for a damaged text.
        """
        self._write = write
        self._is_kept = is_kept
        self._boot = boot()
        row = connection.execute("SELECT is_stopping, boot, reserved FROM life").fetchone()
        is_stopping, last_boot, reserved = row
        #: The jobs that the last process had reserved, each with whether it certainly began.
        self.reserved = msgspec.json.decode(reserved, type=dict[str, bool])
        #: Whether the last process was cut off, and did not crash by itself.
        self.was_cut_off = bool(is_stopping) or "" != last_boot != self._boot

    def begin(self) -> None:
        """Note that a process is running."""
        self._write("UPDATE life SET is_stopping = 0, boot = ?", (self._boot,))

    def reserve(self, reserved: dict[str, bool]) -> None:
        """Note which jobs are reserved, and whether a crash is to mean that they had begun."""
        if self._is_kept:
            self._write("UPDATE life SET reserved = ?", (msgspec.json.encode(reserved).decode(),))

    def stop(self) -> None:
        """Note that this process was told to stop."""
        self._write("UPDATE life SET is_stopping = 1", ())
