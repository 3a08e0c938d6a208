"""What is to be said of an operation: one method of one path."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec


class Header(msgspec.Struct, frozen=True):
    """A header of a request or an answer."""

    name: str
    description: str
    type: Any = str
    #: Whether each such answer has it.
    is_required: bool = False


class Answer(msgspec.Struct, frozen=True):
    """What an operation answers if it does what it is for."""

    description: str
    #: The type that is rendered; None for an answer without content.
    type: Any = None
    #: Such an answer, as it is rendered.
    example: Any = None
    headers: tuple[Header, ...] = ()
    #: Texts that a client may prefer to JSON: an example of each, by its media type.
    texts: Mapping[str, str] = {}
    #: Where to go from here: the name of an operation, to the value of its `job_id`.
    links: Mapping[str, str] = {}


class Body(msgspec.Struct, frozen=True):
    """What a request carries: JSON."""

    #: The type that checks it.
    type: Any
    #: Bodies by a name for each; clients' own types of jobs come besides.
    examples: Mapping[str, Any]


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path. HEAD, OPTIONS and what any request may be answered are not to be said."""

    method: str
    #: As the app routes it.
    path: str
    #: Unique, for clients that are generated.
    name: str
    summary: str
    description: str = ""
    #: The type that checks the query; its fields are the parameters.
    query: type[msgspec.Struct] | None = None
    #: What a request may say in its headers.
    headers: tuple[Header, ...] = ()
    body: Body | None = None
    answers: Mapping[HTTPStatus, Answer]
    #: What else it may answer, with the `detail` of an example.
    errors: Mapping[HTTPStatus, str] = {}

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names that a query may have."""
        return () if self.query is None else self.query.__struct_fields__
