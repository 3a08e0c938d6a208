"""The settings: what can be set, read once from the environment or made in Python, by the same rules."""

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_type_hints

import msgspec
from msgspec import Meta
from msgspec.structs import force_setattr

from actors.errors import SettingError

#: The database that has no file.
IN_MEMORY: Final = ":memory:"
MIB: Final = 1024 * 1024
#: What a size is written in, besides plain bytes.
UNITS: Final = {"KiB": 1024, "MiB": MIB, "GiB": 1024 * MIB}
BYTES: Final = "a number of bytes, such as 1048576, 512KiB, 256MiB or 1GiB"
#: Seconds that finished jobs may be kept: a hundred years.
LONGEST_KEPT: Final = 100 * 365 * 86400
#: Names that other services use too, and so carry no prefix.
UNPREFIXED: Final = ("HOST", "PORT")
#: Names of hosts, or addresses as they stand in a URL.
HOSTS: Final = r"^[\w.:\[\]-]+(\s*,\s*[\w.:\[\]-]+)*$"
#: What Kubernetes tells every process of a Service called gofer, or gofer-something.
SERVICES: Final = re.compile(r"GOFER_(\w+_)?((SERVICE|PORT)_\w+|PORT)")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set. Each description says what is allowed, and ends the message on a wrong value."""

    host: Annotated[str, Meta(min_length=1, description="a host name or an IP address")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="a port, from 0 to 65535")] = 8080
    database: Annotated[str, Meta(min_length=1, description=f"the path of a file, or {IN_MEMORY}")] = (
        IN_MEMORY
    )
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
    #: None is 1 second in memory; in a file jobs are simulated only on request (see `simulation`).
    simulated_seconds: Annotated[
        Annotated[float, Meta(ge=0, le=86400)] | None,
        Meta(description="a number of seconds, from 0 to 86400"),
    ] = None
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
    grace: Annotated[int, Meta(ge=0, le=86400, description="a whole number of seconds, from 0 to 86400")] = 25
    token: Annotated[
        Annotated[str, Meta(pattern=r"^[!-~]+$")] | None,
        Meta(description="visible ASCII characters, without spaces"),
    ] = None
    allowed_hosts: Annotated[
        Annotated[str, Meta(pattern=HOSTS)] | None,
        Meta(description="names of hosts, with commas between them, such as jobs.example,jobs.test"),
    ] = None
    open: Annotated[bool, Meta(description="1 or 0")] = False
    log: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        Meta(description="DEBUG, INFO, WARNING or ERROR"),
    ] = "INFO"
    access_log: Annotated[bool, Meta(description="1, to log each request, or 0")] = False

    def __post_init__(self) -> None:
        if isinstance(self.database, os.PathLike):
            force_setattr(self, "database", os.fspath(self.database))
        for field in self.__struct_fields__:
            force_setattr(self, field, _value(field, field, getattr(self, field)))

    def hosts(self) -> list[str]:
        """Return the names of `allowed_hosts`, in lower case."""
        return [] if self.allowed_hosts is None else re.split(r"\s*,\s*", self.allowed_hosts.lower())

    def simulation(self) -> float:
        """For how many seconds each job is simulated when there are no handlers.

        Raises SettingError if real jobs could be "completed" in this way.
        """
        if self.simulated_seconds is not None:
            return self.simulated_seconds
        if self.database == IN_MEMORY:
            return 1.0
        raise SettingError(
            f"the database is the file {self.database!r}, but no handlers are set to run its jobs;"
            " set GOFER_HANDLERS, or GOFER_SIMULATED_SECONDS if they are only to be simulated"
            " (in Python: `handlers` or `simulated_seconds`)"
        )


#: Each field's type, with what is allowed.
KINDS: Final = get_type_hints(Settings, include_extras=True)


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Read the settings. Raises SettingError, in one line, for a value or a name that is not allowed."""
    fields = {variable(field): field for field in Settings.__struct_fields__}
    for name, text in environment.items():
        if name.startswith("GOFER_") and name not in fields and not _is_of_a_service(name, text):
            raise SettingError(f"{name} is not a setting; the settings are {', '.join(fields)}")
    return Settings(
        **{
            field: _value(name, field, environment[name], strict=False)
            for name, field in fields.items()
            if name in environment
        }
    )


def variable(field: str) -> str:
    """Return the name of the environment variable that sets the field."""
    name = field.upper()
    return name if name in UNPREFIXED else f"GOFER_{name}"


def _is_of_a_service(name: str, text: str) -> bool:
    # GOFER_PORT=8080 is a mistake for PORT=8080; Kubernetes sets it to an address.
    return SERVICES.fullmatch(name) is not None and not (name == "GOFER_PORT" and text.isdigit())


def _value(name: str, field: str, value: Any, *, strict: bool = True) -> Any:
    """Return the value as the field's type. Raises SettingError; with `strict`, a text is not a number."""
    kind = KINDS[field]
    allowed = kind.__metadata__[0].description
    try:
        return msgspec.convert(_in_bytes(value) if BYTES in allowed else value, kind, strict=strict)
    except msgspec.ValidationError:
        raise SettingError(f"{name} is {value!r}; it must be {allowed}") from None


def _in_bytes(value: Any) -> Any:
    """Return a size with a unit as a plain number; anything else as it is."""
    found = re.fullmatch(r"([0-9]+) ?([KMG]iB)", value, re.ASCII) if isinstance(value, str) else None
    return int(found[1]) * UNITS[found[2]] if found else value
