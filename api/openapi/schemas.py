"""JSON Schemas (2020-12) of the types that check what comes and render what goes.

Msgspec makes them. What it writes in Python's regular expressions is put so that every language has it.
"""

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

Schema = dict[str, Any]

PLACE: Final = "#/components/schemas/"


class Schemas:
    """The schemas of some types, and the components that they refer to, whose names have this prefix."""

    def __init__(self, types: Iterable[Any], prefix: str = "") -> None:
        """Raise TypeError for a type that has none."""
        self._types = list(types)
        schemas, components = msgspec.json.schema_components(
            self._types, ref_template=f"{PLACE}{prefix}{{name}}"
        )
        self._schemas: list[Schema] = [_portable(schema) for schema in schemas]
        self.components: dict[str, Schema] = {
            f"{prefix}{name}": _portable(schema) for name, schema in components.items()
        }

    def of(self, kind: Any) -> Schema:
        """Return the schema of one of the types: for a struct a reference."""
        return self._schemas[self._types.index(kind)]

    def whole(self, kind: Any) -> Schema:
        """Return the schema of one of the types itself."""
        schema = self.of(kind)
        if "$ref" in schema:
            return self.components[schema["$ref"].removeprefix(PLACE)]
        return schema

    def has(self, kind: Any) -> bool:
        """Tell whether it is one of the types."""
        return kind in self._types


def describable(types: Iterable[type]) -> list[type]:
    """Return those that have a schema; for others only code can tell what fits."""
    return [kind for kind in types if _has_schema(kind)]


def of_query(query: type) -> dict[str, Schema]:
    """Return the schema of each parameter: as none of them can be null, without that."""
    properties = Schemas([query]).whole(query)["properties"]
    return {name: _without_null(schema) for name, schema in properties.items()}


def sample(schema: Schema, components: Mapping[str, Schema]) -> Any:
    """Return a small value that fits the schema, unless it asks for more than types, sizes and limits."""
    if "$ref" in schema:
        return sample(components[schema["$ref"].removeprefix(PLACE)], components)
    for given in ("const", "default"):
        if given in schema:
            return schema[given]
    for choice in ("examples", "enum"):
        if schema.get(choice):
            return schema[choice][0]
    if "anyOf" in schema:
        return sample(schema["anyOf"][0], components)
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {})
            return {name: sample(fields[name], components) for name in schema.get("required", ())}
        case "array":
            return [sample(item, components) for item in schema.get("prefixItems", ())]
        case "string":
            return "x" * schema.get("minLength", 1)
        case "integer" | "number":
            return schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
        case "boolean":
            return True
        case _:
            return None


def _has_schema(kind: type) -> bool:
    try:
        msgspec.json.schema(kind)
    except Exception:  # noqa: BLE001 - a type may be anything, and do anything when looked into
        return False
    return True


def _without_null(schema: Schema) -> Schema:
    if "anyOf" not in schema:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    choices: list[Schema] = [choice for choice in schema["anyOf"] if choice != {"type": "null"}]
    return rest | choices[0]


def _portable(schema: Any) -> Any:
    match schema:
        case dict():
            return {key: _rewritten(key, value) for key, value in schema.items()}
        case list() | tuple():
            return [_portable(part) for part in schema]
        case _:
            return schema


def _rewritten(key: str, value: Any) -> Any:
    if isinstance(value, str):
        if key == "pattern":
            return value.replace(r"\Z", "$")
        if key == "description":
            return textwrap.dedent(value)
    return _portable(value)
