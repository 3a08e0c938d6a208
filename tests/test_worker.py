"""The Worker, built but not started, and a store that only notes what it is told."""

import contextlib
import logging
import re
import threading
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, cast

import msgspec
import pykka
import pytest
from msgspec import Raw
from msgspec.structs import replace

from actors import log
from actors.errors import StorageFailed
from actors.handlers import Function, Handlers, simulated
from actors.handlers import handler as declared
from actors.interrupts import Interrupts
from actors.lifecycle import Job, Status
from actors.messages import Begin, Cancelled, Complete, Fail, Message, Outcome, Ping, Progress, Release, Run
from actors.messaging.channel import Channel
from actors.work.worker import Worker

#: Seconds after which a test gives up; nothing waits for so long unless it is broken.
LIMIT = 60.0

DEAD = pykka.ActorDeadError("the JobStore is dead")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Store:
    """In place of the JobStore's ref: notes what it is told."""

    def __init__(self) -> None:
        self.begun: list[Message] = []
        self.told: list[Message] = []
        self.outcomes: list[Message] = []
        #: How long each handler took, as the outcomes say.
        self.seconds: list[float | None] = []
        #: Where each error was raised, as the failures say.
        self.tracebacks: list[str] = []
        #: What it raises when it is told anything.
        self.error: BaseException | None = None

    def tell(self, message: Message) -> None:
        if self.error is not None:
            raise self.error
        match message:
            case Begin():
                self.begun.append(message)
            case Outcome():
                self.outcomes.append(replace(message, seconds=None))
                if isinstance(message, Fail):
                    self.tracebacks.append(message.traceback or "")
                    self.outcomes[-1] = replace(self.outcomes[-1], traceback=None)
                self.seconds.append(message.seconds)
            case _:
                self.told.append(message)


def reserved(job_id: str) -> Run:
    """Return what lies in the channel for a job that is to run for the third time."""
    job = Job(
        id=job_id,
        type="email",
        status=Status.PROCESSING,
        created_at=datetime(2030, 1, 1, tzinfo=UTC),
        attempts=3,
        max_retries=0,
        raw_payload=Raw(b'{"to":"you"}'),
    )
    return Run(job)


class Bench:
    """A Worker with everything around it."""

    def __init__(self) -> None:
        self.store = Store()
        self.clock = Clock()
        self.channel = Channel(self.clock)
        self.interrupts = Interrupts(self.clock)

    def worker(self, function: Function) -> Worker:
        handlers = Handlers({"email": function})
        return Worker(self.ref, self.channel, handlers, self.interrupts, monotonic=self.clock)

    def run(self, function: Function) -> list[Message]:
        """Let a new Worker run one job, and return the outcomes."""
        self.worker(function).on_receive(reserved("1"))
        return self.store.outcomes

    def due_in(self, seconds: float) -> list[Message]:
        """Let so many seconds pass, and take what is due from the channel."""
        self.clock.now += seconds
        with self.channel.changed:
            return list(iter(self.channel.take, None))

    @property
    def ref(self) -> pykka.ActorRef[Any]:
        return cast(pykka.ActorRef[Any], self.store)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def echo(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


# A job that succeeds.


def test_a_job_is_begun_run_and_completed(bench: Bench) -> None:
    def handler(payload: dict[str, Any]) -> dict[str, Any]:
        assert bench.store.begun == [Begin("1", 3)]
        return payload

    bench.run(handler)
    assert bench.store.outcomes == [Complete("1", 3, {"to": "you"})]
    assert bench.store.begun == [Begin("1", 3)]
    assert bench.store.told == []


def test_an_outcome_of_a_handlers_own_says_how_long_it_took(bench: Bench) -> None:
    def slow(payload: dict[str, Any]) -> None:
        bench.clock.now += 1.5
        if len(bench.store.outcomes):
            raise ValueError(payload)

    for _ in range(2):
        bench.run(slow)
    assert [type(outcome) for outcome in bench.store.outcomes] == [Complete, Fail]
    assert bench.store.seconds == [1.5, 1.5]


def test_an_interrupted_handler_says_nothing_of_how_long_its_jobs_take(bench: Bench) -> None:
    bench.interrupts.cancel("1")
    bench.run(Steps(bench.clock))
    bench.interrupts.forget("1")
    bench.interrupts.begin_grace(1.5)
    bench.run(Steps(bench.clock))
    assert bench.store.outcomes == [Cancelled("1", 3), Release("1", 3)]
    assert bench.store.seconds == [None, None]


def test_a_worker_runs_one_job_after_the_other(bench: Bench) -> None:
    worker = bench.worker(echo)
    for job_id in "12":
        worker.on_receive(reserved(job_id))
    assert [message.id for message in bench.store.outcomes if isinstance(message, Complete)] == ["1", "2"]


@pytest.mark.parametrize(
    ("result", "stored"),
    [
        (None, None),
        (False, False),
        ("ä", "ä"),
        ({"a": (1, 2.5)}, {"a": [1, 2.5]}),
        ({1: "one"}, {"1": "one"}),
        (datetime(2030, 1, 1, tzinfo=UTC), "2030-01-01T00:00:00Z"),
    ],
)
def test_the_result_is_what_json_makes_of_it(bench: Bench, result: Any, stored: Any) -> None:
    assert bench.run(lambda _payload: result) == [Complete("1", 3, stored)]


def test_a_job_is_not_run_when_the_store_has_stopped(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.store.error = DEAD
    assert bench.run(lambda _payload: pytest.fail("it was run")) == []
    assert bench.due_in(10.0) == []
    assert "the JobStore has stopped" in caplog.text


# A job that fails.


def raising(error: BaseException) -> Function:
    def handler(_payload: dict[str, Any]) -> None:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no such address"), "ValueError: no such address"),
        (ValueError(), "ValueError: "),
        (StorageFailed("of the handler"), "StorageFailed: of the handler"),
        (pykka.ActorDeadError("of the handler"), "ActorDeadError: of the handler"),
        (StopIteration("once"), "StopIteration: once"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt: "),
        (GeneratorExit(), "GeneratorExit: "),
    ],
)
def test_whatever_a_handler_raises_fails_that_job_and_no_other(
    bench: Bench, error: BaseException, text: str
) -> None:
    assert bench.run(raising(error)) == [Fail("1", 3, text)]


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Mute(), "Mute"),
        (OSError("no file \udcff"), "OSError: no file \\udcff"),
        (ValueError("x" * 9000), None),
    ],
)
def test_an_error_has_a_text_that_can_be_stored(
    bench: Bench, error: Exception, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "gofer")  # A log that no report can carry need not be one.
    assert bench.run(raising(error)) == [Fail("1", 3, text or "ValueError: " + "x" * 1988)]


def test_the_worker_goes_on_after_a_job_that_failed(bench: Bench) -> None:
    def handler(_payload: dict[str, Any]) -> str:
        if len(bench.store.outcomes) == 0:
            raise SystemExit
        return "done"

    worker = bench.worker(handler)
    for job_id in "12":
        worker.on_receive(reserved(job_id))
    assert bench.store.outcomes == [Fail("1", 3, "SystemExit: "), Complete("2", 3, "done")]


def test_a_generator_that_raises_fails_its_job(bench: Bench) -> None:
    def handler(_payload: dict[str, Any]) -> Generator[float]:
        yield 0.5
        raise ValueError("half way")

    assert bench.run(handler) == [Fail("1", 3, "ValueError: half way")]


@pytest.mark.parametrize("result", [object(), {"a": object()}, {(1, 2): "a"}, "\ud800", 1j])
def test_a_result_that_is_not_json_fails_the_job(bench: Bench, result: Any) -> None:
    (outcome,) = bench.run(lambda _payload: result)
    assert isinstance(outcome, Fail)


def test_a_worker_logs_nothing_of_how_a_job_ends_as_the_store_does(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "gofer")
    bench.run(echo)
    bench.run(raising(ValueError("no such address")))
    assert caplog.records == []


def test_a_failure_says_where_it_was_raised_within_bounds(bench: Bench) -> None:
    bench.run(raising(ValueError("no such address")))
    bench.run(raising(ValueError("x" * 1_000_000)))
    short, long = bench.store.tracebacks
    assert short.startswith("Traceback")
    assert short.endswith("in handler\n    raise error\nValueError: no such address")
    assert len(long) < 9000
    assert "characters left out" in long


# A generator.


def test_what_a_generator_returns_is_the_result(bench: Bench) -> None:
    def handler(payload: dict[str, Any]) -> Generator[float, None, dict[str, Any]]:
        yield 0.5
        return payload

    assert bench.run(handler) == [Complete("1", 3, {"to": "you"})]
    assert bench.store.told == [Progress("1", 0.5)]


def test_a_generator_reports_progress_ten_times_a_second_at_the_most(bench: Bench) -> None:
    def handler(_payload: dict[str, Any]) -> Generator[float]:
        for step in range(64):
            yield step / 64
            bench.clock.now += 1 / 64

    bench.run(handler)
    times = [message.value for message in bench.store.told if isinstance(message, Progress)]
    assert times[0] == 0.0
    assert len(times) == 10
    assert all(later - earlier >= 0.1 for earlier, later in pairwise(times))


def test_a_slow_generator_reports_every_step(bench: Bench) -> None:
    def handler(_payload: dict[str, Any]) -> Generator[float]:
        for step in range(4):
            yield step / 4
            bench.clock.now += 1.0

    bench.run(handler)
    assert bench.store.told == [Progress("1", step / 4) for step in range(4)]


def test_a_simulated_job_takes_its_time_in_steps(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        bench.clock.now += seconds

    monkeypatch.setattr("time.sleep", sleep)
    assert bench.run(simulated(1.0).find("email").function) == [Complete("1", 3, None)]
    assert bench.clock.now == pytest.approx(1.0)
    assert bench.store.told[0] == Progress("1", 0.0)


# A job that is interrupted, or has bad manners.


class Mail(msgspec.Struct):
    to: str


def test_a_handler_gets_its_payload_as_the_struct_that_it_asks_for(bench: Bench) -> None:
    def send(mail: Mail) -> str:
        return f"to {mail.to}"

    assert bench.run(send) == [Complete("1", 3, "to you")]


def test_a_cancelled_job_ends_at_its_next_yield(bench: Bench) -> None:
    def steps(_payload: dict[str, Any]) -> Generator[float]:
        yield 0.1
        bench.interrupts.cancel("1")
        yield 0.2
        pytest.fail("it went on")

    assert bench.run(steps) == [Cancelled("1", 3)]


def test_an_attempt_that_takes_too_long_fails_at_its_next_yield(bench: Bench) -> None:
    @declared(timeout=2.5)
    def steps(_payload: dict[str, Any]) -> Generator[None]:
        while True:
            bench.clock.now += 1
            yield

    assert bench.run(steps) == [Fail("1", 3, "TimeoutError: the attempt took longer than 2.5 seconds")]
    assert bench.clock.now == 3


def test_a_generator_that_refuses_to_close_is_given_up_all_the_same(bench: Bench) -> None:
    def stubborn(_payload: dict[str, Any]) -> Generator[float]:
        with contextlib.suppress(GeneratorExit):
            yield 0.5
        yield 0.6

    bench.interrupts.cancel("1")
    assert bench.run(stubborn) == [Cancelled("1", 3)]


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan"), "half", [0.5]])
def test_progress_that_is_none_fails_the_job(bench: Bench, progress: Any) -> None:
    def steps(_payload: dict[str, Any]) -> Generator[Any]:
        yield progress

    (outcome,) = bench.run(steps)
    assert outcome == Fail(
        "1", 3, f"ValueError: the handler yielded {progress!r}; progress is a number from 0 to 1"
    )


def test_a_result_over_a_mebibyte_fails_the_job(bench: Bench) -> None:
    assert bench.run(lambda _: "x" * 2**20) == [
        Fail("1", 3, "ValueError: the result has 1048578 bytes; 1048576 is the limit")
    ]


# The grace.


class Steps:
    """A generator handler of four steps of a second each, which notes how it ended."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.begun = 0
        self.was_closed = False

    def __call__(self, _payload: dict[str, Any]) -> Generator[float, None, str]:
        try:
            for step in range(4):
                self.begun += 1
                yield step / 4
                self.clock.now += 1.0
        except GeneratorExit:
            self.was_closed = True
            raise
        return "done"


def test_a_generator_is_closed_and_its_job_released_when_the_grace_is_over(bench: Bench) -> None:
    bench.interrupts.begin_grace(1.5)
    steps = Steps(bench.clock)
    generator = steps({})  # Kept here, or losing it would close it too.
    assert bench.run(lambda _payload: generator) == [Release("1", 3)]
    assert steps.was_closed
    assert steps.begun == 3


def test_a_generator_that_ends_within_the_grace_completes_its_job(bench: Bench) -> None:
    bench.interrupts.begin_grace(3.5)
    steps = Steps(bench.clock)
    assert bench.run(steps) == [Complete("1", 3, "done")]
    assert not steps.was_closed


def test_a_later_grace_can_only_be_shorter(bench: Bench) -> None:
    bench.interrupts.begin_grace(1.5)
    bench.interrupts.begin_grace(100.0)
    assert bench.run(Steps(bench.clock)) == [Release("1", 3)]


def test_a_plain_function_is_let_finish_however_long_it_takes(bench: Bench) -> None:
    bench.interrupts.begin_grace(0.0)
    assert bench.run(echo) == [Complete("1", 3, {"to": "you"})]


def test_a_released_job_does_not_fail_when_its_handler_tidies_up(bench: Bench) -> None:
    tidied = []

    def handler(_payload: dict[str, Any]) -> Generator[float]:
        try:
            yield 0.0
        finally:
            tidied.append("files")

    bench.interrupts.begin_grace(0.0)
    assert bench.run(handler) == [Release("1", 3)]
    assert tidied == ["files"]


# When the JobStore has stopped.


def test_an_outcome_is_dropped_when_the_store_has_stopped(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(_payload: dict[str, Any]) -> None:
        bench.store.error = DEAD

    assert bench.run(stop) == []
    assert bench.due_in(10.0) == []
    assert "the JobStore has stopped" in caplog.text


# A Worker that runs.


@pytest.fixture
def started(bench: Bench) -> Iterator[pykka.ActorRef[Worker]]:
    ref = Worker.start(bench.ref, bench.channel, Handlers({"email": raising(SystemExit())}), bench.interrupts)
    yield ref
    ref.stop(timeout=LIMIT)


def test_an_unknown_message_is_refused_and_harms_nobody(started: pykka.ActorRef[Worker]) -> None:
    started.tell("nonsense")
    with pytest.raises(TypeError, match="Worker does not understand a str message"):
        started.ask("nonsense", timeout=LIMIT)
    assert isinstance(started.ask(Ping(), timeout=LIMIT), threading.Thread)


def test_a_handler_that_exits_stops_no_actor(started: pykka.ActorRef[Worker], bench: Bench) -> None:
    assert started.ask(reserved("1"), timeout=LIMIT) is None
    assert bench.store.outcomes == [Fail("1", 3, "SystemExit: ")]
    assert isinstance(started.ask(Ping(), timeout=LIMIT), threading.Thread)


# Exceptions that are not a handler's.


class Odd(BaseException):
    pass


@pytest.mark.parametrize("error", [Odd("odd"), GeneratorExit(), SystemExit(3), KeyboardInterrupt()])
def test_whatever_is_raised_in_a_workers_own_code_ends_that_worker_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(_worker: Worker, _run: Run) -> None:
        raise error

    monkeypatch.setattr(Worker, "_outcome", fail)
    with pytest.raises(RuntimeError, match=type(error).__name__):
        bench.worker(echo).on_receive(reserved("1"))


@pytest.mark.parametrize("error", [Odd("odd"), TimeoutError("a time limit of an earlier handler")])
def test_the_job_of_a_worker_that_dies_fails_and_says_why(bench: Bench, error: BaseException) -> None:
    bench.store.error = error
    worker = bench.worker(echo)
    with pytest.raises((RuntimeError, TimeoutError)) as raised:
        worker.on_receive(reserved("1"))
    bench.store.error = None
    worker.on_failure(raised.type, raised.value, None)
    (outcome,) = bench.store.outcomes
    assert isinstance(outcome, Fail)
    assert (outcome.id, outcome.attempt) == ("1", 3)
    assert re.match(rf"the Worker died: .*{type(error).__name__}: {error}", outcome.error)


def test_an_error_of_any_length_makes_a_log_line_of_bounded_length() -> None:
    config = log.config("INFO")["formatters"]["gofer"].copy()
    formatter = config.pop("()")(**config)
    try:
        int("x" * 20_000_000)
    except ValueError as error:
        long = (ValueError, ValueError(f"{error}" * 100_000), error.__traceback__)
    record = logging.LogRecord("gofer", logging.ERROR, __file__, 1, "job_failed", (), long)
    line = formatter.format(record)
    assert len(line) < 20_000
    assert "characters left out" in line
    assert "ValueError" in line
