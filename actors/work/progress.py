"""Progress: how a handler in another thread or process tells how far it is, while its Worker waits for it.

One datagram socket in the file system for all calls: any process of this machine can write to it. Nothing
depends on it. On another machine, or if the socket cannot be made or is deleted, the handler works on, and
only its progress is not seen.
"""

import contextlib
import itertools
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from typing import Final, NamedTuple

from actors import log
from actors.work.attempt import Report

#: The number of a call, and how far it is.
MESSAGE: Final = struct.Struct("qd")


class Line(NamedTuple):
    """What a call reports its progress on, wherever it runs."""

    address: str
    number: int

    def report(self, progress: float) -> None:
        """Send how far the call is; if that cannot be sent now, it is dropped."""
        _send(self.address, MESSAGE.pack(self.number, progress))


class Progress:
    """Passes on what calls report, in a thread of its own; safe from any thread."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._reports: dict[int, Report] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="gofer-")
        self._address = f"{self._folder.name}/progress"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._is_closed = False
        self._thread = threading.Thread(target=self._listen, name="progress", daemon=True)
        try:
            self._socket.bind(self._address)
        except OSError as error:  # Such as a path that is too long for a socket.
            log.logger("Pool").warning("the progress of jobs is not shown", error=str(error))
            return
        try:
            self._thread.start()
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def of(self, report: Report) -> Iterator[Line]:
        """Pass on what the call reports meanwhile, and nothing after that."""
        number = next(self._numbers)
        with self._lock:
            self._reports[number] = report
        try:
            yield Line(self._address, number)
        finally:
            with self._lock:
                del self._reports[number]

    def close(self) -> None:
        """End its thread, and delete the socket."""
        self._is_closed = True
        if self._thread.ident is not None:
            _send(self._address, b"", wait=True)
            with contextlib.suppress(OSError):  # Wakes the thread even if the address was deleted.
                self._socket.shutdown(socket.SHUT_RDWR)
            self._thread.join()
        self._socket.close()
        self._folder.cleanup()

    def _listen(self) -> None:
        while not self._is_closed:
            message = self._socket.recv(MESSAGE.size)
            if len(message) == MESSAGE.size:
                self._pass_on(*MESSAGE.unpack(message))

    def _pass_on(self, number: int, progress: float) -> None:
        with self._lock:
            report = self._reports.get(number)
            if report is not None:
                with contextlib.suppress(Exception):  # The JobStore may have stopped.
                    report(progress)


def _send(address: str, message: bytes, *, wait: bool = False) -> None:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(wait)
        sender.sendto(message, address)
