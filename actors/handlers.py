"""What runs a job: a function from payload to result, or a generator that yields its progress."""

import dataclasses
import importlib
import inspect
import math
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, get_type_hints

import msgspec

from actors.errors import HandlerError, InvalidJob

#: Takes the payload and returns the result; as a generator it yields progress, from 0 to 1, and each
#: yield is a point where a cancel, a time limit or a shutdown takes effect.
Function = Callable[[Any], Any]

#: Seconds to wait after the first failed attempt at the most, unless the handler says otherwise.
FIRST_BACKOFF: Final = 1.0
#: Seconds between two yields of a simulated job, and so how soon it notices an interrupt.
STEP: Final = 0.1


class Handler(msgspec.Struct, frozen=True):
    """A function with what is special about it."""

    function: Function
    #: For jobs that name none; None leaves it to the settings.
    max_retries: int | None = None
    #: Seconds to wait after the first failed attempt at the most; each later wait may be twice as long.
    backoff: float = FIRST_BACKOFF
    #: Seconds that an attempt may take. Only a generator can be held to it.
    timeout: float | None = None

    @property
    def yields(self) -> bool:
        """Whether it can be interrupted."""
        return inspect.isgeneratorfunction(self.function)

    @property
    def accepts(self) -> type | None:
        """The msgspec Struct or dataclass that it wants its payload as; None for the plain object."""
        hints = get_type_hints(self.function)
        for name in inspect.signature(self.function).parameters:
            kind = hints.get(name)
            is_model = isinstance(kind, type) and (
                issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind)
            )
            return kind if is_model else None
        return None


def handler(
    *, max_retries: int | None = None, backoff: float = FIRST_BACKOFF, timeout: float | None = None
) -> Callable[[Function], Handler]:
    """Decorate a function with what is special about it."""
    return lambda function: Handler(function, max_retries, backoff, timeout)


class Handlers:
    """The handlers by job type; with a default, every type has one."""

    def __init__(self, handlers: Mapping[str, Function | Handler], default: Handler | None = None) -> None:
        """Check them; raise HandlerError for a handler that cannot work."""
        self._default = default
        self._handlers = {name: _checked(name, given) for name, given in handlers.items()}
        self._accepts = {name: found.accepts for name, found in self._handlers.items()}

    def find(self, job_type: str) -> Handler:
        """Return the handler of this type. Raises InvalidJob if there is none."""
        found = self._handlers.get(job_type, self._default)
        if found is None:
            known = ", ".join(sorted(self._handlers)) or "none"
            raise InvalidJob(f"no handler for `type` {job_type!r}; there are: {known}")
        return found

    def backoff(self, job_type: str) -> float:
        """Return the seconds of the type's first backoff, even if its handler is gone since."""
        found = self._handlers.get(job_type, self._default)
        return FIRST_BACKOFF if found is None else found.backoff

    def argument(self, job_type: str, payload: dict[str, Any]) -> Any:
        """Return the payload as the handler wants it. Raises InvalidJob if it does not fit."""
        accepts = self._accepts.get(job_type)
        if accepts is None:
            return payload
        try:
            return msgspec.convert(payload, accepts)
        except msgspec.ValidationError as error:
            reason = str(error).replace("`$", "`$.payload")
            raise InvalidJob(f"the payload does not fit: {reason}") from None


def simulated(seconds: float) -> Handlers:
    """Return handlers for any type that take so many seconds and do nothing."""

    def pretend(_payload: dict[str, Any]) -> Generator[float, None, None]:
        steps = math.ceil(seconds / STEP)
        for step in range(steps):
            yield step / steps
            time.sleep(seconds / steps)

    return Handlers({}, default=Handler(pretend))


def load(place: str) -> Handlers:
    """Import the mapping at `module:name`. Raises HandlerError, in one line, if that cannot be done."""
    module, _, name = place.partition(":")
    try:
        mapping = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise HandlerError(f"GOFER_HANDLERS is {place!r}; it cannot be imported: {error!r}") from error
    if not isinstance(mapping, Mapping):
        raise HandlerError(f"GOFER_HANDLERS is {place!r}; it must name a mapping of types to handlers")
    return Handlers(mapping)


def _checked(name: str, given: Function | Handler) -> Handler:
    if not isinstance(given, Handler):
        given = Handler(given)
    if not callable(given.function):
        raise HandlerError(f"the handler of {name!r} is no function: {given.function!r}")
    if given.timeout is not None and not given.yields:
        raise HandlerError(
            f"the handler of {name!r} has a timeout, but a plain function cannot be interrupted:"
            " let it yield now and then"
        )
    return given
