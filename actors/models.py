"""What is to be known of a payload model: whether validating a payload runs code of its own."""

import dataclasses
from collections.abc import Iterator
from enum import Enum
from typing import Any

import msgspec
from msgspec import inspect
from msgspec.structs import astuple


def runs_code(model: type) -> bool:
    """Tell whether decoding into the model may run Python code: its own, or that of a type inside it."""
    try:
        return any(map(_is_code, _parts(inspect.type_info(model))))
    except Exception:  # noqa: BLE001 - a type that cannot be looked into may do anything
        return True


def _parts(info: inspect.Type) -> Iterator[Any]:
    """Yield the type and all that it is made of, each once."""
    seen: set[int] = set()
    to_see: list[Any] = [info]
    while to_see:
        part = to_see.pop()
        if isinstance(part, tuple):
            to_see.extend(part)
        elif isinstance(part, inspect.Type | inspect.Field) and id(part) not in seen:
            seen.add(id(part))
            yield part
            to_see.extend(astuple(part))


def _is_code(part: inspect.Type | inspect.Field) -> bool:
    match part:
        case inspect.Field(default_factory=factory):
            return factory not in (msgspec.NODEFAULT, list, dict, set, bytearray)
        case inspect.StructType(cls=model):
            return hasattr(model, "__post_init__")
        case inspect.DataclassType(cls=model):
            return hasattr(model, "__post_init__") or not dataclasses.is_dataclass(model)
        case inspect.EnumType(cls=model):
            return getattr(model, "_missing_").__func__ is not Enum._missing_.__func__  # type: ignore[attr-defined]  # noqa: B009
        case inspect.CustomType():
            return True
        case _:
            return False
