"""Which function runs which type of job, and what is refused."""

import dataclasses
import functools
from collections.abc import AsyncGenerator, Generator
from typing import Any

import msgspec
import pytest

from actors.errors import HandlerError, InvalidJob
from actors.handlers import Handlers, handler
from actors.loading import load_handlers
from actors.opaque import encode


class Mail(msgspec.Struct):
    to: str
    copies: int = 0


@dataclasses.dataclass
class Report:
    pages: int


def send(mail: Mail) -> str:
    return mail.to


def write(report: Report) -> int:
    return report.pages


def test_a_handler_stays_a_plain_function_with_its_options_beside_it() -> None:
    @handler(max_retries=3, backoff=10)
    def double(payload: dict[str, int]) -> int:
        return 2 * payload["n"]

    assert double({"n": 4}) == 8
    options = Handlers({"double": double}).options("double")
    assert (options.max_retries, options.backoff, options.timeout) == (3, 10, None)


def test_a_payload_becomes_the_struct_or_dataclass_that_the_handler_asks_for() -> None:
    handlers = Handlers({"mail": send, "report": write, "any": print})
    assert handlers.find("mail").argument(encode({"to": "you"})) == Mail("you")
    assert handlers.find("report").argument(encode({"pages": 3})) == Report(3)
    assert handlers.find("any").argument(encode({"what": "ever"})) == {"what": "ever"}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"to": 5}, r"Expected `str`, got `int` - at `\$.payload.to`"),
        ({"to": "you", "copies": "x"}, r"Expected `int`, got `str` - at `\$.payload.copies`"),
        ({}, "it lacks the field `to`"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_with_the_path_of_the_wrong_field(
    payload: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidJob, match=reason):
        Handlers({"mail": send}).find("mail").argument(encode(payload))


def test_a_callable_of_which_nothing_is_known_gets_the_payload_as_it_is() -> None:
    handlers = Handlers({"print": functools.partial(print, end="")})
    assert handlers.find("print").argument(encode({"a": 1})) == {"a": 1}


def test_a_time_limit_on_a_plain_function_is_refused() -> None:
    with pytest.raises(HandlerError, match="'send' has a timeout, but a plain function cannot"):
        Handlers({"send": handler(timeout=5)(lambda _: None)})


def test_a_time_limit_on_a_generator_is_accepted() -> None:
    @handler(timeout=5)
    def steps(_payload: dict[str, Any]) -> Generator[float]:
        yield 1.0

    assert Handlers({"steps": steps}).options("steps").timeout == 5


def test_what_is_no_function_is_refused() -> None:
    wrong: Any = "send"
    with pytest.raises(HandlerError, match="the handler of 'mail' is not a function: 'send'"):
        Handlers({"mail": wrong})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_retries": -1}, "Expected `int` >= 0"),
        ({"max_retries": "3"}, "got `str`"),
        ({"backoff": -0.1}, "Expected `float` >= 0"),
        ({"backoff": float("nan")}, "Expected `float` >= 0"),
        ({"backoff": 301}, "Expected `float` <= 300"),
        ({"timeout": 0}, "Expected `float` > 0"),
        ({"timeout": float("inf")}, "Expected `float` <= 31536000"),
    ],
)
def test_an_option_that_is_not_allowed_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(HandlerError, match=rf"{reason}.* - at `\$\.{next(iter(options))}`"):
        handler(**options)


@pytest.mark.parametrize("job_type", ["", "a\n", "x" * 256, 1])
def test_a_type_that_no_job_can_have_is_refused(job_type: Any) -> None:
    with pytest.raises(HandlerError, match=r"no job can be of type .* 1 to 255 printable characters"):
        Handlers({job_type: send})


async def later(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


async def later_in_steps(_payload: dict[str, Any]) -> AsyncGenerator[float]:
    yield 1.0


@pytest.mark.parametrize("function", [later, later_in_steps])
def test_an_async_function_is_refused(function: Any) -> None:
    with pytest.raises(HandlerError, match="the handler of 'mail' is async, but a Worker has no event loop"):
        Handlers({"mail": function})


@pytest.mark.parametrize("function", [lambda: None, lambda _to, _text: None, lambda *, _to: None])
def test_a_function_that_cannot_be_called_with_a_payload_is_refused(function: Any) -> None:
    with pytest.raises(HandlerError, match="the handler of 'mail' must take one argument, the payload"):
        Handlers({"mail": function})


def annotated(annotations: dict[str, str]) -> Any:
    def function(payload: Any) -> Any:
        return payload

    function.__annotations__ = annotations
    return function


def test_only_the_annotation_of_the_payload_has_to_be_there_when_it_runs() -> None:
    handlers = Handlers({"mail": annotated({"payload": "Mail", "return": "OnlyForTypeCheckers"})})
    assert handlers.find("mail").argument(encode({"to": "you"})) == Mail("you")
    with pytest.raises(
        HandlerError, match=r"'mail' annotates its payload with a type that cannot be resolved: .*Gone"
    ):
        Handlers({"mail": annotated({"payload": "Gone"})})


def test_the_payload_of_a_callable_object_is_checked_as_that_of_a_function_is() -> None:
    class Sender:
        def __call__(self, mail: Mail) -> str:
            return mail.to

    assert Handlers({"mail": Sender()}).find("mail").argument(encode({"to": "you"})) == Mail("you")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("no.such.module:handlers", "cannot be imported: ModuleNotFoundError"),
        ("examples.words:nothing", "cannot be imported: AttributeError"),
        ("examples.words:count_words", "must name a mapping of types to handlers"),
    ],
)
def test_a_setting_that_leads_nowhere_is_refused_in_one_line(place: str, reason: str) -> None:
    with pytest.raises(HandlerError, match=reason) as refusal:
        load_handlers(place)
    assert str(refusal.value).startswith(f"GOFER_HANDLERS is {place!r}; ")
    assert "\n" not in str(refusal.value)
