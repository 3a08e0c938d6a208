"""Payloads and results are opaque JSON: the bytes that came, through every station of a job's life."""

import asyncio
import dataclasses
import enum
import json
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import falcon.testing
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from actors import Await, Get, Job, Retry, Settings, Submit, System, opaque, start
from actors.errors import InvalidJob
from actors.models import runs_code
from api import create_app

#: Seconds after which a test gives up; nothing waits for so long unless it is broken.
LIMIT = 20.0

JSON = {
    "object": b'{"to":"you"}',
    "array": b"[1]",
    "text": b'"x"',
    "number": b"7",
    "null": b"null",
    "true": b"true",
    "false": b"false",
    "empty text": b'""',
    "10 to the 40th": b"1" + b"0" * 40,
    "negative zero": b"-0.0",
    "1e400": b"1e400",
    "-1E+400": b"-1E+400",
    "0.1 with all digits": b"0.1000000000000000055511151231257827",
    "5,000 digits": b"7" * 5000,
    "emoji": '"\N{GRINNING FACE}"'.encode(),
    "emoji, escaped": rb'"\ud83d\ude00"',
    "NUL": rb'"\u0000"',
    "right to left": '"\u202e\u05d0\u05d1"'.encode(),
    "200 levels": b"[" * 200 + b"]" * 200,
    "brackets in a text": b'"' + b"[" * 300 + b'\\""',
    "duplicate keys": b'{"a":1,"a":2}',
    "white space": b'{ "a" :\n\t[ 1 , 2 ] }',
    "nearly 1 MiB": b'"' + b"x" * (2**20 - 100) + b'"',
}
#: What Python cannot hold, or not without change.
BEYOND_PYTHON = {"1e400", "-1E+400", "5,000 digits"}

each_json = pytest.mark.parametrize("data", JSON.values(), ids=JSON)
each_storage = pytest.mark.parametrize("storage", ["memory", "file"])


def never(_payload: Any) -> None:
    raise ValueError("never")


def as_it_came(payload: Any) -> Any:
    return payload


def decodes(data: bytes) -> bool:
    return not any(JSON[name] == data for name in BEYOND_PYTHON)


class Bench:
    """A system and its HTTP API; it can be restarted on the same file."""

    def __init__(self, database: str) -> None:
        self.settings = Settings(database=database)
        self.start()

    def start(self) -> None:
        self.system: System = start(self.settings, {"echo": as_it_came, "never": never})
        self.http = falcon.testing.TestClient(create_app(self.system))

    def restart(self) -> None:
        self.system.stop()
        self.start()

    def post(self, data: bytes, job_type: str = "echo") -> falcon.testing.Result:
        body = b'{"type":"%s","payload":%s}' % (job_type.encode(), data)
        return self.http.simulate_post("/jobs", body=body, headers={"Content-Type": "application/json"})

    def finished(self, job_id: str) -> Job:
        job: Job = self.system.store.ask(Await(job_id), block=True, timeout=LIMIT)
        return job


@pytest.fixture
def bench(storage: str, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(":memory:" if storage == "memory" else str(tmp_path / "jobs.db"))
    yield bench
    bench.system.stop()


@each_storage
@each_json
def test_a_payload_is_shown_as_the_bytes_that_came(bench: Bench, data: bytes) -> None:
    response = bench.post(data, "never")
    assert response.status_code == 201
    job_id = response.json["id"]
    assert bench.finished(job_id).status == "failed"
    bench.system.store.ask(Retry(job_id), block=True, timeout=LIMIT)
    assert bench.finished(job_id).attempts == 2
    if bench.settings.database != ":memory:":
        bench.restart()
    shown = bench.http.simulate_get(f"/jobs/{job_id}").content
    assert b'"payload":%s' % data in shown
    assert bench.system.store.ask(Get(job_id), block=True).raw_payload == Raw(data)


@each_storage
@each_json
def test_a_handler_gets_the_value_and_its_result_is_kept(bench: Bench, data: bytes) -> None:
    job_id = bench.post(data).json["id"]
    job = bench.finished(job_id)
    if decodes(data):
        assert job.status == "completed"
        assert job.result == job.payload == json.loads(data)
        assert msgspec.Raw(b"-0.0") != job.raw_payload or math.copysign(1, job.result) == -1
    else:
        assert job.status == "failed"
        assert "a number too large for Python" in (job.last_error or "")
        with pytest.raises(msgspec.ValidationError, match="a number too large for Python"):
            job.payload  # noqa: B018 - it raises


@each_storage
@pytest.mark.parametrize(
    "value", [{"a": 1}, [1], "x", 7, None, True, -0.0, 10**40, "\0", "\U0001f600", 1e308]
)
def test_python_submits_and_gets_plain_values(bench: Bench, value: Any) -> None:
    job = bench.system.store.ask(Submit("echo", value), block=True)
    done = bench.finished(job.id)
    assert (done.payload, done.result) == (value, value)
    assert type(done.result) is type(value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "NaN or Infinity"),
        ({"a": [None, -math.inf]}, "NaN or Infinity"),
        ("\ud800", "a lone surrogate"),
        (object(), "type object is unsupported"),
        (Raw(b"[1,]"), "trailing comma"),
        (Raw(b'"\xff"'), "not UTF-8"),
        (Raw(b"[" * 201 + b"]" * 201), "more than 200 levels"),
        (Raw(b"[" * 100_000 + b"]" * 100_000), "more than 200 levels"),
    ],
)
def test_what_is_not_json_can_neither_be_submitted_nor_be_a_result(value: Any, reason: str) -> None:
    with pytest.raises(InvalidJob, match=reason):
        Submit("echo", value)
    with start(handlers={"give": lambda _: value}) as system:
        job = system.store.ask(Submit("give"), block=True)
        done = system.store.ask(Await(job.id), block=True, timeout=LIMIT)
    assert done.status == "failed"
    assert reason in done.last_error


def test_a_value_nested_too_deeply_is_refused() -> None:
    value: list[Any] = []
    for _ in range(200):
        value = [value]
    with pytest.raises(InvalidJob, match="more than 200 levels"):
        Submit("echo", value)
    assert Submit("echo", value[0]).payload == Raw(b"[" * 200 + b"]" * 200)


@pytest.mark.parametrize("storage", ["memory"])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'"\\ud800"', "a lone surrogate"),
        (b'"\\udc00\\ud800"', "a lone surrogate"),
        (b'"\xff"', "not UTF-8"),
        (b"[" * 201 + b"]" * 201, "more than 200 levels"),
        (b"[" * 100_000 + b"]" * 100_000, "more than 200 levels"),
        (b"NaN", "malformed"),
    ],
)
def test_http_says_what_is_wrong_with_a_payload(bench: Bench, data: bytes, reason: str) -> None:
    response = bench.post(data)
    assert response.status_code == 400
    assert reason in response.json["detail"]


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
        ),
    )
)
def test_whatever_json_a_value_is_it_comes_back(value: Any) -> None:
    assert opaque.decode(opaque.encode(value)) == value


@given(st.lists(st.sampled_from([b"[", b'{"[":', b'"]\\"["'])))
def test_the_depth_is_that_of_the_brackets_outside_texts(parts: list[bytes]) -> None:
    opening = [part for part in parts if part != b'"]\\"["'] * 20
    closing = [b"]" if part == b"[" else b"}" for part in reversed(opening)]
    raw = Raw(b"".join([*opening, b'"]]}\\"{["', *closing]))
    if len(opening) <= opaque.DEPTH:
        assert opaque.checked(raw) is raw
    else:
        with pytest.raises(ValueError, match="more than 200 levels"):
            opaque.checked(raw)


# Validation.


class Mail(msgspec.Struct):
    to: str
    size: int = 0


class Slow(msgspec.Struct):
    seconds: float

    def __post_init__(self) -> None:
        time.sleep(self.seconds)


@dataclasses.dataclass
class Point:
    x: int


class Colour(enum.Enum):
    RED = "red"


class Lenient(enum.Enum):
    RED = "red"

    @classmethod
    def _missing_(cls, _value: object) -> "Lenient":
        return cls.RED


class Tree(msgspec.Struct):
    children: "list[Tree]"
    colour: Colour | None = None
    tags: set[str] = msgspec.field(default_factory=set)


class Outer(msgspec.Struct):
    inner: list[dict[str, Slow | None]]


class Made(msgspec.Struct):
    at: float = msgspec.field(default_factory=time.time)


class Painted(msgspec.Struct):
    colour: Lenient


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Mail, False),
        (Point, False),
        (Tree, False),
        (Slow, True),
        (Outer, True),
        (Made, True),
        (Painted, True),
    ],
)
def test_a_model_is_known_to_run_code_of_its_own(model: type, expected: bool) -> None:
    assert runs_code(model) is expected


def test_a_payload_that_does_not_fit_is_refused_in_the_thread_of_whoever_submits() -> None:
    threads: list[threading.Thread] = []

    class Noted(msgspec.Struct):
        n: int

        def __post_init__(self) -> None:
            threads.append(threading.current_thread())

    def take(_payload: Noted) -> None: ...

    take.__annotations__["_payload"] = Noted
    with start(handlers={"take": take}) as system:
        with pytest.raises(InvalidJob, match=r"Expected `int`, got `str` - at `\$.payload.n`"):
            system.store.ask(Submit("take", {"n": "x"}))
        with pytest.raises(InvalidJob, match="no handler"):
            system.store.tell(Submit("other"))
        job = system.store.ask(Submit("take", {"n": 1}), block=True)
        system.store.ask(Await(job.id), block=True, timeout=LIMIT)
    assert threads[0] is threading.current_thread()
    assert [thread.name.startswith("Worker") for thread in threads[1:]] == [True]


def test_a_slow_validation_delays_no_other_request() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Held(msgspec.Struct):
        def __post_init__(self) -> None:
            begun.set()
            assert go_on.wait(LIMIT)

    def take(_payload: Held) -> None: ...

    take.__annotations__["_payload"] = Held

    async def submit_both(system: System) -> tuple[int, ...]:
        async with falcon.testing.ASGIConductor(create_app(system)) as http:
            held = http.simulate_post("/jobs", json={"type": "take", "payload": {}})
            waiting = asyncio.ensure_future(held)
            await asyncio.to_thread(begun.wait, LIMIT)
            other = await http.simulate_post("/jobs", json={"type": "echo"})
            listed = await http.simulate_get("/jobs")
            assert not waiting.done()
            go_on.set()
            held_result = await waiting
        return other.status_code, listed.status_code, held_result.status_code

    with start(handlers={"take": take, "echo": as_it_came}) as system:
        assert asyncio.run(submit_both(system)) == (201, 200, 201)
