"""What runs a job: a function from payload to result, or a generator that yields its progress."""

import dataclasses
import inspect
import math
import time
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Annotated, Any, Final, TypeVar, get_type_hints

import msgspec
from msgspec import Meta, Raw

from actors import opaque
from actors.errors import HandlerError, InvalidJob
from actors.lifecycle import LONGEST_BACKOFF
from actors.messages import MOST_RETRIES, Submit
from actors.models import runs_code

#: Takes the payload and returns the result; as a generator it yields progress, from 0 to 1, and each
#: yield is a point where a cancel, a time limit or a shutdown takes effect.
Function = Callable[[Any], Any]

F = TypeVar("F", bound=Callable[..., Any])
#: The attribute of a function that holds its Options.
OPTIONS: Final = "gofer_options"

#: Seconds that a time limit may be: a year.
LONGEST_TIMEOUT: Final = 365 * 86400
#: Seconds between two yields of a simulated job, and so how soon it notices an interrupt.
STEP: Final = 0.1


class Options(msgspec.Struct, frozen=True):
    """A handler's options."""

    #: For jobs that set none; None leaves it to the settings.
    max_retries: Annotated[int, Meta(ge=0, le=MOST_RETRIES)] | None = None
    #: Seconds to wait at most after the first failed attempt; each later wait may be twice as long.
    backoff: Annotated[float, Meta(ge=0, le=LONGEST_BACKOFF)] = 1.0
    #: Seconds that an attempt may take. In the Worker's own thread only a generator can be held to it.
    timeout: Annotated[float, Meta(gt=0, le=LONGEST_TIMEOUT)] | None = None


def handler(
    *, max_retries: int | None = None, backoff: float = 1.0, timeout: float | None = None
) -> Callable[[F], F]:
    """Set the options of the function that follows, which stays a plain function.

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


class Handler:
    """All that Gofer knows of the function that runs one type of job."""

    __slots__ = ("_decoder", "function", "model", "options", "runs_code")

    def __init__(self, job_type: str, function: Function, *, on_executor: bool = False) -> None:
        """Raise HandlerError for a function that cannot work where it is to run."""
        _check(job_type, function, on_executor=on_executor)
        self.function = function
        self.options: Options = getattr(function, OPTIONS, Options())
        #: The msgspec Struct or dataclass that the function takes; None takes the payload as it is.
        self.model = _model(job_type, function)
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self.model or Any)
        #: Whether validating a payload runs code of the model's own, which may take any time.
        self.runs_code = self.model is not None and runs_code(self.model)

    def check(self, payload: Raw) -> None:
        """Raise InvalidJob if the payload does not fit the model; without one, every payload fits."""
        if self.model is not None:
            self.argument(payload)

    def argument(self, payload: Raw) -> Any:
        """Decode the payload into what the function takes. Raises InvalidJob if it does not fit."""
        try:
            return opaque.decode(payload, self._decoder)
        except msgspec.ValidationError as error:
            reason, _, path = opaque.in_words(error).partition(" - at `$")
            raise InvalidJob(f"the payload does not fit: {reason} - at `$.payload{path or '`'}") from None
        except (Exception, SystemExit) as error:
            raise InvalidJob(f"the payload does not fit: {error!r}") from error


class Handlers:
    """The handlers by job type; with a default, every type has one."""

    def __init__(
        self, functions: Mapping[str, Function], default: Function | None = None, *, on_executor: bool = False
    ) -> None:
        """Raise HandlerError for a function that cannot work where it is to run."""
        self._known = {
            job_type: Handler(job_type, function, on_executor=on_executor)
            for job_type, function in functions.items()
        }
        self._default = None if default is None else Handler("any", default)

    @property
    def types(self) -> list[str]:
        """The types that have a handler of their own."""
        return sorted(self._known)

    @property
    def models(self) -> dict[str, type | None] | None:
        """What jobs of each type take as their payload, if it has a model; None if any type has a handler."""
        if self._default is not None:
            return None
        return {job_type: handler.model for job_type, handler in self._known.items()}

    def find(self, job_type: str) -> Handler:
        """Return the handler of this type. Raises InvalidJob if there is none."""
        found = self._known.get(job_type, self._default)
        if found is None:
            known = ", ".join(sorted(self._known)) or "none"
            raise InvalidJob(f"no handler for `type` {job_type!r}; there are: {known}")
        return found

    def knows(self, job_type: str) -> bool:
        """Tell whether jobs of this type can run."""
        return self._default is not None or job_type in self._known

    def options(self, job_type: str) -> Options:
        """Return the options of the type's handler, or the defaults if the handler was removed."""
        found = self._known.get(job_type, self._default)
        return Options() if found is None else found.options


def simulated(seconds: float) -> Handlers:
    """Return handlers for any type that take `seconds` and do nothing."""
    return Handlers({}, default=partial(_pretend, seconds))


def _pretend(seconds: float, _payload: Any) -> Generator[float, None, None]:
    steps = math.ceil(seconds / STEP)
    for step in range(steps):
        yield step / steps
        time.sleep(seconds / steps)


def _check(job_type: str, function: Function, *, on_executor: bool) -> None:
    try:
        Submit(job_type)
    except InvalidJob as error:
        raise HandlerError(f"no job can be of type {job_type!r}: {error}") from None
    if not callable(function):
        raise HandlerError(f"the handler of {job_type!r} is not a function: {function!r}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise HandlerError(
            f"the handler of {job_type!r} is async, but a Worker has no event loop:"
            " make it a plain function, which may call asyncio.run()"
        )
    options: Options = getattr(function, OPTIONS, Options())
    if options.timeout is not None and not (on_executor or inspect.isgeneratorfunction(function)):
        raise HandlerError(
            f"the handler of {job_type!r} has a timeout, but a plain function cannot be interrupted:"
            " let it yield now and then, or run it on an executor (GOFER_EXECUTOR)"
        )


def _model(job_type: str, function: Function) -> type | None:
    """Return the msgspec Struct or dataclass that the function takes its payload as, if it does."""
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
            f"the handler of {job_type!r} annotates its payload with a type that cannot be resolved:"
            f" {error!r}"
        ) from error
    is_model = isinstance(hint, type) and (issubclass(hint, msgspec.Struct) or dataclasses.is_dataclass(hint))
    return hint if is_model else None


def _hint(function: Function, payload: inspect.Parameter) -> Any:
    """Return the payload's annotation; all other annotations may be there for type checkers only."""

    def probe() -> None: ...

    probe.__annotations__ = {"payload": payload.annotation}
    names = getattr(inspect.unwrap(function), "__globals__", {})
    return get_type_hints(probe, names)["payload"]
