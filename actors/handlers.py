"""What runs a job: a function from payload to result, or a generator that yields its progress."""

import dataclasses
import importlib
import inspect
import math
import time
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any, Final, TypeVar, cast, get_type_hints

import msgspec

from actors.errors import HandlerError, InvalidJob

#: Takes the payload and returns the result; as a generator it yields progress, from 0 to 1, and each
#: yield is a point where a cancel, a time limit or a shutdown takes effect.
Function = Callable[[Any], Any]

F = TypeVar("F", bound=Callable[..., Any])
#: The attribute of a function that holds its Options.
OPTIONS: Final = "gofer_options"
#: Makes the executor on which handlers run.
Factory = Callable[[], object]

#: Seconds between two yields of a simulated job, and so how soon it notices an interrupt.
STEP: Final = 0.1


class Options(msgspec.Struct, frozen=True):
    """What is special about a handler."""

    #: For jobs that name none; None leaves it to the settings.
    max_retries: int | None = None
    #: Seconds to wait after the first failed attempt at the most; each later wait may be twice as long.
    backoff: float = 1.0
    #: Seconds that an attempt may take. In the Worker's own thread only a generator can be held to it.
    timeout: float | None = None


def handler(
    *, max_retries: int | None = None, backoff: float = 1.0, timeout: float | None = None
) -> Callable[[F], F]:
    """Say what is special about the function that follows, which stays a plain function."""

    def decorate(function: F) -> F:
        setattr(function, OPTIONS, Options(max_retries, backoff, timeout))
        return function

    return decorate


class Handlers:
    """The handlers by job type; with a default, every type has one."""

    def __init__(
        self, handlers: Mapping[str, Function], default: Function | None = None, *, on_executor: bool = False
    ) -> None:
        """Check them; raise HandlerError for a handler that cannot work where it is to run."""
        for job_type, function in handlers.items():
            _check(job_type, function, on_executor=on_executor)
        self._functions = dict(handlers)
        self._default = default
        self._models = {job_type: _model(function) for job_type, function in handlers.items()}

    def find(self, job_type: str) -> Function:
        """Return the handler of this type. Raises InvalidJob if there is none."""
        function = self._functions.get(job_type, self._default)
        if function is None:
            known = ", ".join(sorted(self._functions)) or "none"
            raise InvalidJob(f"no handler for `type` {job_type!r}; there are: {known}")
        return function

    def options(self, job_type: str) -> Options:
        """Return what is special about the type's handler; nothing, if the handler is gone since."""
        return options(self._functions.get(job_type, self._default))

    def argument(self, job_type: str, payload: dict[str, Any]) -> Any:
        """Return the payload as the handler wants it. Raises InvalidJob if it does not fit."""
        model = self._models.get(job_type)
        if model is None:
            return payload
        try:
            return msgspec.convert(payload, model)
        except msgspec.ValidationError as error:
            reason, _, path = str(error).partition(" - at `$")
            raise InvalidJob(f"the payload does not fit: {reason} - at `$.payload{path or '`'}") from None
        except BaseException as error:
            raise InvalidJob(f"the payload does not fit: {error!r}") from error


def simulated(seconds: float) -> Handlers:
    """Return handlers for any type that take so many seconds and do nothing."""
    return Handlers({}, default=partial(_pretend, seconds))


def _pretend(seconds: float, _payload: dict[str, Any]) -> Generator[float, None, None]:
    steps = math.ceil(seconds / STEP)
    for step in range(steps):
        yield step / steps
        time.sleep(seconds / steps)


def load(place: str, *, on_executor: bool = False) -> Handlers:
    """Import the mapping at `module:name`. Raises HandlerError, in one line, if that cannot be done."""
    mapping = _imported("GOFER_HANDLERS", place)
    if not isinstance(mapping, Mapping):
        raise HandlerError(f"GOFER_HANDLERS is {place!r}; it must name a mapping of types to handlers")
    return Handlers(mapping, on_executor=on_executor)


def load_factory(place: str) -> Factory:
    """Import what makes the executor, at `module:name`; raises HandlerError as `load` does."""
    factory = _imported("GOFER_EXECUTOR", place)
    if not callable(factory):
        raise HandlerError(f"GOFER_EXECUTOR is {place!r}; it must name a function that returns an executor")
    return cast("Factory", factory)


def _imported(setting: str, place: str) -> object:
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:
        raise HandlerError(f"{setting} is {place!r}; it cannot be imported: {error!r}") from error


def options(function: Function | None) -> Options:
    """Return what is special about a function."""
    found: Options = getattr(function, OPTIONS, Options())
    return found


def _check(job_type: str, function: Function, *, on_executor: bool) -> None:
    if not callable(function):
        raise HandlerError(f"the handler of {job_type!r} is no function: {function!r}")
    can_be_given_up = on_executor or inspect.isgeneratorfunction(function)
    if options(function).timeout is not None and not can_be_given_up:
        raise HandlerError(
            f"the handler of {job_type!r} has a timeout, but a plain function cannot be interrupted:"
            " let it yield now and then, or run it on an executor (GOFER_EXECUTOR)"
        )


def _model(function: Function) -> type | None:
    """Return the msgspec Struct or dataclass that the function wants its payload as, if it does."""
    try:
        hints = get_type_hints(function)
    except TypeError:
        return None  # A callable object, or a partial: nothing is known of its payload.
    kinds = [hints.get(name) for name in inspect.signature(function).parameters][:1]
    for kind in kinds:
        if isinstance(kind, type) and (issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind)):
            return kind
    return None
