"""The settings, read once from the environment."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_type_hints

import msgspec
from msgspec import Meta

from actors.errors import SettingError

MIB: Final = 1024 * 1024
#: What a size is written in, besides plain bytes.
UNITS: Final = {"KiB": 1024, "MiB": MIB, "GiB": 1024 * MIB}
BYTES: Final = "a number of bytes, such as 1048576, 512KiB, 256MiB or 1GiB"
#: Seconds that finished jobs may be kept: a hundred years.
LONGEST_KEPT: Final = 100 * 365 * 86400


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set. Each description says what is allowed, and ends the message on a wrong value."""

    host: Annotated[str, Meta(min_length=1, description="a host name or an IP address")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="a port, from 0 to 65535")] = 8080
    database: Annotated[str, Meta(min_length=1, description="the path of a file, or :memory:")] = ":memory:"
    workers: Annotated[int, Meta(ge=1, le=256, description="a whole number of Workers, from 1 to 256")] = 1
    capacity: Annotated[int, Meta(ge=1, description="a whole number of pending jobs, at least 1")] = 10_000
    capacity_bytes: Annotated[int, Meta(ge=1, description=f"{BYTES}, at least 1")] = 256 * MIB
    capacity_delayed: Annotated[
        int, Meta(ge=1, description="a whole number of pending jobs that are delayed, at least 1")
    ] = 100_000
    handlers: Annotated[
        Annotated[str, Meta(pattern=r"^[\w.]+:\w+$")] | None,
        Meta(description="module:mapping, such as examples.words:handlers"),
    ] = None
    executor: Annotated[
        Annotated[str, Meta(pattern=r"^[\w.]+:\w+$")] | None,
        Meta(description="module:factory, such as examples.processes:executor"),
    ] = None
    max_retries: Annotated[
        int, Meta(ge=0, le=1000, description="a whole number of retries, from 0 to 1000")
    ] = 0
    simulated_seconds: Annotated[
        float, Meta(ge=0, le=86400, description="a number of seconds, from 0 to 86400")
    ] = 1.0
    on_crash: Annotated[Literal["retry", "fail"], Meta(description="retry or fail")] = "retry"
    keep_finished: Annotated[
        int, Meta(ge=0, description="a whole number of finished jobs, or 0 to keep all")
    ] = 100_000
    keep_failed: Annotated[int, Meta(ge=0, description="a whole number of failed jobs, or 0 to keep all")] = (
        10_000
    )
    keep_bytes: Annotated[int, Meta(ge=0, description=f"{BYTES}, or 0 for no limit")] = 256 * MIB
    keep_seconds: Annotated[
        float, Meta(ge=0, le=LONGEST_KEPT, description="a number of seconds, or 0 for no limit")
    ] = 0
    log: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        Meta(description="DEBUG, INFO, WARNING or ERROR"),
    ] = "INFO"


#: Names that other services use too, and so carry no prefix.
UNPREFIXED = ("HOST", "PORT")


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Read the settings. Raises SettingError, in one line, for a value or a name that is not allowed."""
    fields = {variable(field): field for field in Settings.__struct_fields__}
    for name in environment:
        if name.startswith("GOFER_") and name not in fields:
            raise SettingError(f"{name} is not a setting; the settings are {', '.join(fields)}")
    return Settings(
        **{
            field: _value(name, field, environment[name])
            for name, field in fields.items()
            if name in environment
        }
    )


def variable(field: str) -> str:
    """Return the name of the environment variable that sets the field."""
    name = field.upper()
    return name if name in UNPREFIXED else f"GOFER_{name}"


def _value(name: str, field: str, text: str) -> Any:
    kind = get_type_hints(Settings, include_extras=True)[field]
    allowed = kind.__metadata__[0].description
    try:
        return msgspec.convert(_in_bytes(text) if BYTES in allowed else text, kind, strict=False)
    except msgspec.ValidationError:
        raise SettingError(f"{name} is {text!r}; it must be {allowed}") from None


def _in_bytes(text: str) -> str:
    """Return a size with a unit as a plain number; any other text as it is."""
    found = re.fullmatch(r"([0-9]+) ?([KMG]iB)", text, re.ASCII)
    return str(int(found[1]) * UNITS[found[2]]) if found else text
