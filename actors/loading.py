"""Importing what settings name: the mapping of handlers, and the factory of an executor."""

import importlib
from collections.abc import Callable, Mapping
from typing import cast

from actors.errors import HandlerError
from actors.handlers import Handlers

#: Makes the executor on which handlers run.
Factory = Callable[[], object]


def load_handlers(place: str, *, on_executor: bool = False) -> Handlers:
    """Import the mapping at `module:name`. Raises HandlerError, in one line, if that cannot be done."""
    mapping = _imported("GOFER_HANDLERS", place)
    if not isinstance(mapping, Mapping):
        raise HandlerError(f"GOFER_HANDLERS is {place!r}; it must name a mapping of types to handlers")
    return Handlers(mapping, on_executor=on_executor)


def load_factory(place: str) -> Factory:
    """Import the function at `module:name` that makes an executor. Raises HandlerError as above."""
    factory = _imported("GOFER_EXECUTOR", place)
    if not callable(factory):
        raise HandlerError(f"GOFER_EXECUTOR is {place!r}; it must name a function that returns an executor")
    return cast("Factory", factory)


def _imported(setting: str, place: str) -> object:
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        raise HandlerError(f"{setting} is {place!r}; it cannot be imported: {error!r}") from error
