"""The journal: what the log says of each job, when it is durable.

One line for each move, named by its event (see changes.py): `job_created`, `job_started` and so on. What is
said of every job is said at DEBUG; while that is not wanted, nothing is made of it.
"""

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from actors import log
from actors.messages import Fail, Outcome
from actors.store.changes import Changes, Move

#: The events that are worth more than DEBUG.
LEVELS: Final[Mapping[str, int]] = MappingProxyType(
    {"retried": logging.WARNING, "recovered": logging.WARNING, "failed": logging.ERROR}
)


class Journal:
    """Writes the log of the jobs. Nothing of a payload or a result is in it."""

    def __init__(self) -> None:
        self._log = log.logger("JobStore")

    def report(self, changes: Changes) -> None:
        """Log what has become durable."""
        if changes.is_recovered and (jobs := sum(isinstance(move.cause, str) for move in changes.moves)):
            self._log.info("recovered", jobs=jobs)
        is_detailed = self._log.isEnabledFor(logging.DEBUG)
        for move in changes.moves:
            # An outcome other than a failure, and what has no cause, is of interest to DEBUG alone.
            if is_detailed or (move.cause is not None and move.event in LEVELS):
                event = move.event
                self._log.log(LEVELS.get(event, logging.DEBUG), f"job_{event}", **_fields(move))


def _fields(move: Move) -> dict[str, Any]:
    job, cause = move.after, move.cause
    fields: dict[str, Any] = {"job_id": job.id, "type": job.type, "attempt": job.attempts}
    if isinstance(cause, Outcome):
        fields["attempt"] = cause.attempt
        if cause.seconds is not None:
            fields["duration_s"] = round(cause.seconds, 6)
    if isinstance(cause, str):
        fields["reason"] = cause
    if move.event in LEVELS and job.last_error is not None:
        fields["error"] = job.last_error
    if job.run_at is not None:
        fields["at"] = f"{job.run_at:%FT%T.%fZ}"
    if isinstance(cause, Fail) and cause.traceback is not None and move.event == "failed":
        fields["exception"] = cause.traceback
    return fields
