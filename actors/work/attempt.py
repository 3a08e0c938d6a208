"""One call of a handler, driven to its end, in whatever thread or process it is to run."""

import math
import time
from collections.abc import Callable, Generator
from typing import Any, Final

from msgspec import Raw

from actors import log, opaque
from actors.handlers import Function

#: Seconds between two reports of progress, at least, however often the handler yields.
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


def call(  # noqa: PLR0913 - what to call, its limits, and where to report
    function: Function,
    argument: Any,
    timeout: float | None,
    report: Report,
    *,
    check: Callable[[], None] = lambda: None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Raw:
    """Call the handler and return its result as JSON; raise what the handler raises.

    At each yield of a generator: `check` may raise to close it; past `timeout` seconds it is closed with a
    TimeoutError; and its progress is reported, at most ten times a second.
    """
    end = monotonic() + (math.inf if timeout is None else timeout)
    result = function(argument)
    if isinstance(result, Generator):

        def pause() -> None:
            check()
            if monotonic() >= end:
                raise overdue(timeout)

        result = _drive(result, pause, _throttled(report, monotonic))
    return _as_json(result)


def overdue(timeout: float | None) -> TimeoutError:
    """Return the error of an attempt that is past its limit in seconds."""
    return TimeoutError(f"the attempt took longer than {timeout:g} seconds")


def described(error: BaseException) -> str:
    """Return the error as a text that can be stored, even if its `__str__` raises."""
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
    except BaseException:  # noqa: BLE001 - the reason for closing matters more than the handler's reaction
        log.logger("Worker").exception("the handler did not close cleanly")


def _throttled(report: Report, monotonic: Callable[[], float]) -> Report:
    next_report = monotonic()

    def throttled(progress: float) -> None:
        nonlocal next_report
        if (now := monotonic()) >= next_report:
            next_report = now + PROGRESS_INTERVAL
            report(progress)

    return throttled


def _checked(progress: Any) -> float | None:
    """Return what a handler has yielded: its progress, or None if it only offers to be interrupted."""
    if progress is not None and not (isinstance(progress, int | float) and 0 <= progress <= 1):
        raise ValueError(f"the handler yielded {progress!r}; progress is a number from 0 to 1")
    return progress


def _as_json(result: Any) -> Raw:
    """Return the result as JSON. Raises ValueError for what is not JSON, or too large."""
    try:
        encoded = opaque.encode(result)
    except ValueError as error:
        raise ValueError(f"the result is not JSON that can be kept: {error}") from None
    if len(encoded) > RESULT_LIMIT:
        raise ValueError(f"the result has {len(encoded)} bytes; {RESULT_LIMIT} is the limit")
    return encoded
