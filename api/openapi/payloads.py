"""What jobs there can be: where handlers are given, a job is of one of their types, and its payload fits.

A handler's model describes the payload. One that only code can check, or a handler without a model, leaves
the payload as it is.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from actors.errors import InvalidJob
from actors.handlers import Handlers
from api.openapi.schemas import Schema, Schemas, describable, sample

#: The models of handlers have names of their own, which may be the same as ours.
PREFIX: Final = "payload."


class Payloads:
    """The schema of a job that these handlers run, and examples by their types."""

    def __init__(self, handlers: Handlers, submission: Schema, components: Mapping[str, Schema]) -> None:
        """Take the schema of a job of any type, and the components that it may refer to."""
        self._handlers = handlers
        self._general = submission
        models = handlers.models or {}
        self._schemas = Schemas(
            describable({model for model in models.values() if model is not None}), PREFIX
        )
        self.components = self._schemas.components
        #: Of any type, if the handlers run any; then there are no examples.
        self.submission = submission
        self.examples: dict[str, Any] | None = None
        if handlers.models is not None:
            choices = {job_type: self._of_type(job_type, model) for job_type, model in models.items()}
            self.submission = {"title": submission["title"], "anyOf": list(choices.values())}
            samples = {
                job_type: sample(choice, {**self.components, **components})
                for job_type, choice in choices.items()
            }
            self.examples = {
                job_type: job for job_type, job in samples.items() if self._fits(job_type, job.get("payload"))
            }

    def _of_type(self, job_type: str, model: type | None) -> Schema:
        general = self._general
        properties = {**general["properties"], "type": {"const": job_type}}
        required = list(general["required"])
        if model is not None and self._schemas.has(model):
            properties["payload"] = self._schemas.of(model)
            whole = self._schemas.whole(model)
            if whole.get("required") or whole.get("type") != "object":
                required.append("payload")
        return {**general, "title": job_type, "properties": properties, "required": required}

    def _fits(self, job_type: str, payload: Any) -> bool:
        """Tell whether a sample fits, as far as that can be told without running code of the model's own."""
        handler = self._handlers.find(job_type)
        if handler.runs_code:
            return False
        try:
            handler.check(Raw(msgspec.json.encode({} if payload is None else payload)))
        except InvalidJob:
            return False
        return True
