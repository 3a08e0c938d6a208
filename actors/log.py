"""The log: one format for Gofer, gunicorn and pykka, on stderr."""

import logging
import logging.config
import os
import sys
import traceback
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, Protocol, TextIO

import structlog

#: Characters of an error with its traceback that are logged: the first, and the last.
FIRST: Final = 6000
LAST: Final = 2000
#: The name of the one handler, by which it is known whether Gofer's format is in use.
HANDLER: Final = "gofer"


class AtWork(Protocol):
    """A job, as far as the log names it."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def type(self) -> str:
        """Which handler runs it."""

    @property
    def attempts(self) -> int:
        """Which attempt runs."""


class Named(NamedTuple):
    """A job's name, for where the job itself does not go."""

    id: str
    type: str
    attempts: int


#: The job that runs in this context, which each line that its handler logs carries.
JOB: Final[ContextVar[AtWork | None]] = ContextVar("job", default=None)


#: The id of the request that is being answered: what is logged in the midst of it says which it was.
REQUEST_ID: Final[ContextVar[bytes]] = ContextVar("request_id")


class Logger(structlog.stdlib.BoundLogger):
    """Structlog's; only that what is said of every job costs next to nothing while it is not wanted."""

    def debug(self, event: str | None = None, *args: Any, **values: Any) -> Any:
        """Log the event if the level says so."""
        return super().debug(event, *args, **values) if self.isEnabledFor(logging.DEBUG) else None


def logger(actor: str) -> Logger:
    """Return the logger of an actor; it ends in the standard `logging`, under the name "gofer"."""
    bare: Logger = structlog.wrap_logger(
        logging.getLogger("gofer"),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.render_to_log_kwargs,
        ],
        wrapper_class=Logger,
    )
    return bare.bind(actor=actor)


def config(level: str) -> dict[str, Any]:
    """Return what logging.config.dictConfig needs to log from `level` up.

    For people if stderr is a terminal, else a JSON object a line.
    """
    rendering: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=_write)]
        if sys.stderr.isatty()
        else [structlog.processors.ExceptionRenderer(_bounded), structlog.processors.JSONRenderer()]
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "gofer": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": [
                    structlog.processors.TimeStamper(fmt="iso"),
                    structlog.stdlib.add_log_level,
                    structlog.stdlib.add_logger_name,
                    structlog.stdlib.ExtraAdder(),
                    _name_request,
                    _add_job,
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    *rendering,
                ],
            }
        },
        "handlers": {HANDLER: {"class": "logging.StreamHandler", "formatter": "gofer"}},
        "root": {"level": level, "handlers": [HANDLER]},
        "loggers": {
            # Pykka logs each exception that an actor returns to its asker, traceback and all, as INFO.
            "pykka": {"level": "WARNING"},
            "gunicorn.error": {"level": level, "handlers": [HANDLER], "propagate": False},
        },
    }


def level() -> str | None:
    """Return the level if this process logs in Gofer's format; None if others look after its log."""
    root = logging.getLogger()
    is_ours = any(handler.name == HANDLER for handler in root.handlers)
    return logging.getLevelName(root.level) if is_ours else None


def adopt(wanted: str | None) -> None:
    """Log like the service, in a process of its own that a pool has started."""
    if wanted is not None and level() is None:
        logging.config.dictConfig(config(wanted))


def have_stderr() -> None:
    """Send stderr nowhere if it is closed.

    Otherwise the next file to be opened would be descriptor 2: whatever a library or a handler's command
    writes to stderr would go into it, perhaps into a client's connection.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It gets the lowest number that is free: this one.
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - a descriptor


def _name_request(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    request_id = REQUEST_ID.get(None)
    if request_id is not None:
        event["request_id"] = request_id.decode()
    return event


def described(error: BaseException) -> str:
    """Return an error with its traceback, cut in the middle: an error's text may be of any length."""
    try:
        text = "".join(traceback.format_exception(error)).rstrip()
    except Exception:  # noqa: BLE001 - an exception may be of any make
        text = type(error).__name__
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= FIRST + LAST:
        return text
    return f"{text[:FIRST]}\n... {len(text) - FIRST - LAST} characters left out ...\n{text[-LAST:]}"


def _add_job(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add to a line of a handler's which job it runs."""
    job = JOB.get()
    if job is not None:
        event = {"job_id": job.id, "type": job.type, "attempt": job.attempts, **event}
    return event


def _bounded(exc_info: Any) -> str:
    return described(exc_info[1])


def _write(file: TextIO, exc_info: Any) -> None:
    file.write(_bounded(exc_info))
