"""One call of a handler, driven to its end, in whatever thread or process it is to run."""

import math
import time
from collections.abc import Callable, Generator
from typing import Any, Final

import msgspec

from actors import log
from actors.handlers import Function

#: Seconds between two reports of progress at the least, however often the handler yields.
PROGRESS_INTERVAL: Final = 0.1
#: Bytes of JSON that a result may have, and characters of an error that are kept.
RESULT_LIMIT: Final = 1024 * 1024
LONGEST_ERROR: Final = 2000

Report = Callable[[float], None]


class RemoteError(Exception):
    """What a handler raised on an executor, in words."""

    def __init__(self, description: str, traceback: str) -> None:
        super().__init__(f"{description}\n{traceback}")
        self.description = description


def perform(  # noqa: PLR0913 - what to call, its limits, and whom to tell
    function: Function,
    argument: Any,
    timeout: float | None,
    report: Report,
    *,
    check: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> Any:
    """Return what JSON makes of the handler's result; raise what the handler raises.

    At each yield of a generator: `check` may raise to close it; past `timeout` seconds it is closed with a
    TimeoutError; and its progress is reported, ten times a second at the most.
    """
    end = clock() + (math.inf if timeout is None else timeout)
    result = function(argument)
    if isinstance(result, Generator):

        def pause() -> None:
            check()
            if clock() >= end:
                raise overdue(timeout)

        result = _drive(result, pause, _throttled(report, clock))
    return None if result is None else _as_json(result)


def overdue(timeout: float | None) -> TimeoutError:
    """Return the error of an attempt that is past its limit in seconds."""
    return TimeoutError(f"the attempt took longer than {timeout:g} seconds")


def described(error: BaseException) -> str:
    """Return a text that can be stored, whatever the error makes of being asked for one."""
    if isinstance(error, RemoteError):
        return error.description
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - its __str__ is the handler's code too
        text = type(error).__name__
    return text.encode("utf-8", "backslashreplace").decode()[:LONGEST_ERROR]


def _drive(steps: Generator[Any, None, Any], pause: Callable[[], None], report: Report) -> Any:
    while True:
        try:
            progress = _checked(next(steps))
        except StopIteration as last:
            return last.value
        try:
            pause()
        except BaseException:
            _close(steps)
            raise
        if progress is not None:
            report(progress)


def _close(steps: Generator[Any, None, Any]) -> None:
    try:
        steps.close()
    except BaseException:  # noqa: BLE001 - why it was closed counts more than how it took that
        log.logger("Worker").exception("the handler did not close cleanly")


def _throttled(report: Report, clock: Callable[[], float]) -> Report:
    next_report = clock()

    def throttled(progress: float) -> None:
        nonlocal next_report
        if (now := clock()) >= next_report:
            next_report = now + PROGRESS_INTERVAL
            report(progress)

    return throttled


def _checked(progress: Any) -> float | None:
    """Return what a handler has yielded: how far it is, or None if it only lets itself be interrupted."""
    if progress is not None and not (isinstance(progress, int | float) and 0 <= progress <= 1):
        raise ValueError(f"the handler yielded {progress!r}; progress is a number from 0 to 1")
    return progress


def _as_json(result: Any) -> Any:
    """Return what JSON makes of the result. Raises TypeError or ValueError for what it cannot take."""
    encoded = msgspec.json.encode(result)
    if len(encoded) > RESULT_LIMIT:
        raise ValueError(f"the result has {len(encoded)} bytes; {RESULT_LIMIT} is the limit")
    return msgspec.json.decode(encoded)
