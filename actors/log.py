"""The log: one format for Gofer, gunicorn and pykka, on stderr."""

import logging
import os
import sys
import traceback
from contextvars import ContextVar
from typing import Any, Final, TextIO

import structlog

#: Characters of an error with its traceback that are logged: the first, and the last.
FIRST: Final = 6000
LAST: Final = 2000


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
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    *rendering,
                ],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "gofer"}},
        "root": {"level": level, "handlers": ["stderr"]},
        "loggers": {
            # Pykka logs each exception that an actor returns to its asker, traceback and all, as INFO.
            "pykka": {"level": "WARNING"},
            "gunicorn.error": {"level": level, "handlers": ["stderr"], "propagate": False},
        },
    }


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


def _bounded(exc_info: Any) -> str:
    """Return an error with its traceback, cut in the middle: an error's text may be of any length."""
    text = "".join(traceback.format_exception(*exc_info)).rstrip()
    if len(text) <= FIRST + LAST:
        return text
    return f"{text[:FIRST]}\n... {len(text) - FIRST - LAST} characters left out ...\n{text[-LAST:]}"


def _write(file: TextIO, exc_info: Any) -> None:
    file.write(_bounded(exc_info))
