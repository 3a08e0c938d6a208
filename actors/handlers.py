"""What runs a job: a function from payload to result, or a generator that yields its progress."""

import dataclasses
import importlib
import inspect
import math
import time
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Annotated, Any, Final, TypeVar, cast, get_type_hints

import msgspec
from msgspec import Meta

from actors.errors import HandlerError, InvalidJob
from actors.lifecycle import LONGEST_BACKOFF
from actors.messages import MOST_RETRIES, Submit

#: Takes the payload and returns the result; as a generator it yields progress, from 0 to 1, and each
#: yield is a point where a cancel, a time limit or a shutdown takes effect.
Function = Callable[[Any], Any]

F = TypeVar("F", bound=Callable[..., Any])
#: The attribute of a function that holds its Options.
OPTIONS: Final = "gofer_options"
#: Makes the executor on which handlers run.
Factory = Callable[[], object]

#: Seconds that a time limit may be: a year.
LONGEST_TIMEOUT: Final = 365 * 86400
#: Seconds between two yields of a simulated job, and so how soon it notices an interrupt.
STEP: Final = 0.1


class Options(msgspec.Struct, frozen=True):
    """What is special about a handler."""

    #: For jobs that name none; None leaves it to the settings.
    max_retries: Annotated[int, Meta(ge=0, le=MOST_RETRIES)] | None = None
    #: Seconds to wait after the first failed attempt at the most; each later wait may be twice as long.
    backoff: Annotated[float, Meta(ge=0, le=LONGEST_BACKOFF)] = 1.0
    #: Seconds that an attempt may take. In the Worker's own thread only a generator can be held to it.
    timeout: Annotated[float, Meta(gt=0, le=LONGEST_TIMEOUT)] | None = None


def handler(
    *, max_retries: int | None = None, backoff: float = 1.0, timeout: float | None = None
) -> Callable[[F], F]:
    """Say what is special about the function that follows, which stays a plain function.

    Raises HandlerError for a value that is not allowed.
    """
    given = {"max_retries": max_retries, "backoff": backoff, "timeout": timeout}
    try:
        found = msgspec.convert(given, Options)
    except msgspec.ValidationError as error:
        raise HandlerError(f"@handler was given {given}: {error}") from None

    def decorate(function: F) -> F:
        setattr(function, OPTIONS, found)
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
        self._models = {job_type: _model(job_type, function) for job_type, function in handlers.items()}

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
    try:
        Submit(job_type)
    except InvalidJob as error:
        raise HandlerError(f"no job can be of type {job_type!r}: {error}") from None
    if not callable(function):
        raise HandlerError(f"the handler of {job_type!r} is no function: {function!r}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise HandlerError(
            f"the handler of {job_type!r} is async, but a Worker has no event loop:"
            " let it be a plain function, which may call asyncio.run()"
        )
    can_be_given_up = on_executor or inspect.isgeneratorfunction(function)
    if options(function).timeout is not None and not can_be_given_up:
        raise HandlerError(
            f"the handler of {job_type!r} has a timeout, but a plain function cannot be interrupted:"
            " let it yield now and then, or run it on an executor (GOFER_EXECUTOR)"
        )


def _model(job_type: str, function: Function) -> type | None:
    """Return the msgspec Struct or dataclass that the function wants its payload as, if it does."""
    try:
        signature = inspect.signature(function)
        signature.bind({})
        hint = _hint(function, next(iter(signature.parameters.values())))
    except ValueError:
        return None  # A function in C, of which nothing is known.
    except TypeError:
        raise HandlerError(f"the handler of {job_type!r} must take one argument, the payload") from None
    except Exception as error:
        raise HandlerError(
            f"the handler of {job_type!r} annotates its payload with a type that is not there: {error!r}"
        ) from error
    is_model = isinstance(hint, type) and (issubclass(hint, msgspec.Struct) or dataclasses.is_dataclass(hint))
    return hint if is_model else None


def _hint(function: Function, payload: inspect.Parameter) -> Any:
    """Return what the payload is annotated with; all else may be there for type checkers only."""

    def probe() -> None: ...

    probe.__annotations__ = {"payload": payload.annotation}
    names = getattr(inspect.unwrap(function), "__globals__", {})
    return get_type_hints(probe, names)["payload"]
