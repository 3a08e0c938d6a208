"""Signs of life of a worker process before its event loop runs, which then gives them.

Gunicorn never ends a process that has not given one. If the first job that is recovered holds the GIL, this
process would neither go on nor be ended: the service would be dead for good. A thread needs the GIL as well,
so its signs stop then; and it needs no more than that, so a database that takes long to open stops none.
"""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final

#: Seconds from one sign to the next.
BEAT: Final = 1.0


class Heartbeat:
    """Gives a sign now and then in a `with` block."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> None:
        self._notify()
        self._thread.start()

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._is_over.wait(BEAT):
            self._notify()
