"""Executors that fail, or whose futures say nothing of what runs; the long form is tests/executors.py."""

import asyncio
import contextlib
import itertools
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    InvalidStateError,
    ThreadPoolExecutor,
)
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from actors import Await, Cancel, Get, Settings, Submit, start
from actors.handlers import Function
from actors.interrupts import Interrupt, Interrupted
from actors.messages import CutOff, Fail
from actors.opaque import decode
from actors.work.attempt import RemoteError
from actors.work.pool import Pool
from actors.work.task import ExecutorFailed, NotBegun
from tests.calling import EMAIL, Store
from tests.executors import FAULTS, Trial, faults_of, interrupted
from tests.jobs import LIMIT
from tests.service import eventually


@pytest.mark.parametrize("on_crash", ["retry", "fail"])
def test_what_runs_on_a_cluster_runs_as_often_as_it_has_attempts_whatever_interrupts_it(
    on_crash: str, tmp_path: Path
) -> None:
    once = on_crash == "fail"
    with Trial(tmp_path, on_crash) as trial:
        jobs = interrupted(trial, FAULTS, once=once)
        runs = trial.runs()
    assert list(faults_of(jobs, runs, once=once)) == []
    assert {runs[job.number] - job.attempts for job in jobs} == {0}
    assert {job.status for job in jobs} == {"failed" if once else "completed"}


# The pool, on executors that fail.


class Fake(Executor):
    """Runs calls in threads; its futures stay pending while they run, and can be cancelled, as Dask's."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []
        self.has_ended = threading.Event()

    def submit(self, fn: Callable[..., Any], /, *_args: Any, **_kwargs: Any) -> Future[Any]:
        future = Future[Any]()
        self.futures.append(future)
        threading.Thread(target=self._run, args=(future, fn), daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        self.has_ended.set()

    def lose(self) -> None:
        """Cancel all calls, as a client that has lost its connection."""
        for future in self.futures:
            if future.cancel():
                future.set_running_or_notify_cancel()

    @staticmethod
    def _run(future: Future[Any], fn: Callable[..., Any]) -> None:
        result = fn()
        with contextlib.suppress(InvalidStateError):
            future.set_result(result)


class Refusing(Fake):
    """Raises at each submit."""

    def submit(self, fn: Callable[..., Any], /, *_args: Any, **_kwargs: Any) -> Future[Any]:  # noqa: ARG002
        raise RuntimeError("the client is closed")


class Sly(Fake):
    """Raises at each submit, but calls what was submitted, if it may."""

    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log

    def submit(self, fn: Callable[..., Any], /, *_args: Any, **_kwargs: Any) -> Future[Any]:
        threading.Timer(0.05, self._call, (fn,)).start()
        raise RuntimeError("can't start new thread")

    def _call(self, fn: Callable[..., Any]) -> None:
        try:
            fn()
        except NotBegun:
            self.log.append("not begun")


class Handler:
    """Waits in its run until it is let go."""

    def __init__(self) -> None:
        self.runs = 0
        self.has_begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self, _payload: Any) -> str:
        self.runs += 1
        self.has_begun.set()
        assert self.may_end.wait(LIMIT)
        return "done"


class Factory:
    """Makes the executors that it was given, one after the other; raises those that are errors."""

    def __init__(self, *made: Executor | Exception) -> None:
        self.made = list(made)
        self.times: list[float] = []

    def __call__(self) -> Executor:
        self.times.append(time.monotonic())
        made = self.made.pop(0)
        if isinstance(made, Exception):
            raise made
        return made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> float:
    """Have executors made again without much of a pause."""
    monkeypatch.setattr("actors.work.pool.PAUSE", 0.05)
    return 0.05


@contextlib.contextmanager
def calling(pool: Pool, handler: Function) -> Iterator[Future[Raw]]:
    """Call the handler on the pool, in a thread."""
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(pool.call, handler, {}, None, lambda _: None)


def test_what_may_run_is_not_given_back_when_the_pool_is_closed() -> None:
    handler, fake = Handler(), Fake()
    pool = Pool(lambda: fake)
    with calling(pool, handler) as result:
        assert handler.has_begun.wait(LIMIT)
        pool.close()
        assert not fake.futures[0].cancelled()
        handler.may_end.set()
        assert decode(result.result(LIMIT)) == "done"
    pool.stop()


def test_what_its_executor_has_lost_is_cut_off_and_the_next_call_has_another(quick: float) -> None:
    assert quick
    handler, first, second = Handler(), Fake(), Fake()
    pool = Pool(Factory(first, second))
    with calling(pool, handler) as result:
        assert handler.has_begun.wait(LIMIT)
        first.lose()
        with pytest.raises(ExecutorFailed, match="CancelledError"):
            result.result(LIMIT)
    handler.may_end.set()
    assert decode(pool.call(lambda _: 1, {}, None, lambda _: None)) == 1
    assert first.has_ended.wait(LIMIT)
    assert len(second.futures) == 1
    pool.stop()


def test_a_call_that_could_not_be_submitted_goes_to_the_next_executor(quick: float) -> None:
    factory = Factory(Refusing(), OSError("no cluster"), Refusing(), OSError("no cluster"), Fake())
    pool = Pool(factory)
    assert decode(pool.call(lambda _: 1, {}, None, lambda _: None)) == 1
    gaps = [after - before for before, after in itertools.pairwise(factory.times[1:])]
    assert min(gaps) >= quick - 0.01
    assert pool.problem() is None
    pool.stop()


def test_a_call_whose_submit_has_raised_no_longer_begins(quick: float) -> None:
    assert quick
    log: list[str] = []
    runs: list[int] = []
    pool = Pool(Factory(Sly(log), Fake()))
    pool.call(lambda _: runs.append(1), {}, None, lambda _: None)
    eventually(lambda: log)
    assert runs == [1]
    pool.stop()


def test_while_there_is_no_executor_calls_wait_health_says_so_and_a_stop_gives_them_back() -> None:
    class Away(Factory):
        def __call__(self) -> Executor:
            if self.made:
                return super().__call__()
            self.times.append(time.monotonic())
            raise OSError("no cluster")

    factory = Away(Refusing())
    pool = Pool(factory)
    with calling(pool, lambda _: 1) as result:
        eventually(lambda: pool.problem() == "no executor can be made: OSError: no cluster")
        assert not result.done()
        pool.close()
        with pytest.raises(Interrupted) as caught:
            result.result(LIMIT)
        assert caught.value.reason is Interrupt.RELEASE
    pool.stop()
    assert len(factory.times) <= 3


class Stubborn(Fake):
    """Raises whenever it is to let go of something."""

    class Kept(Future[Any]):
        def cancel(self) -> bool:
            raise NotImplementedError

    def submit(self, fn: Callable[..., Any], /, *_args: Any, **_kwargs: Any) -> Future[Any]:
        future = self.Kept()
        threading.Thread(target=self._run, args=(future, fn), daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        raise NotImplementedError


class Hanging(Fake):
    """Does not come back from its shutdown."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        self.has_ended.wait(LIMIT)


@pytest.mark.parametrize("executor", [Stubborn, Hanging])
def test_an_executor_that_does_not_end_holds_up_no_stop(
    executor: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.work.pool.LONGEST_END", 0.2)
    handler, fake = Handler(), executor()
    pool = Pool(lambda: fake)
    with calling(pool, handler) as result:
        assert handler.has_begun.wait(LIMIT)
        pool.close()
        handler.may_end.set()
        assert decode(result.result(LIMIT)) == "done"
    begun = time.monotonic()
    pool.stop()
    assert time.monotonic() - begun < 5
    fake.has_ended.set()


def test_a_call_past_its_limit_is_given_up_even_if_it_cannot_be_cancelled(quick: float) -> None:
    assert quick
    handler, second = Handler(), Fake()
    pool = Pool(Factory(Stubborn(), second))
    with pytest.raises(TimeoutError):
        pool.call(handler, {}, 0.05, lambda _: None)
    assert decode(pool.call(lambda _: 1, {}, None, lambda _: None)) == 1
    assert second.futures
    handler.may_end.set()
    pool.stop()


def test_a_factory_that_hangs_holds_up_no_stop_and_what_it_makes_later_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.work.pool.LONGEST_END", 0.2)
    hangs, goes_on, late = threading.Event(), threading.Event(), Fake()
    is_first = iter([True])

    def factory() -> Executor:
        if next(is_first, False):
            return Refusing()
        hangs.set()
        assert goes_on.wait(LIMIT)
        return late

    pool = Pool(factory)
    with calling(pool, lambda _: 1) as result:
        assert hangs.wait(LIMIT)
        pool.close()
        with pytest.raises(Interrupted):
            result.result(LIMIT)
    pool.stop()
    goes_on.set()
    assert late.has_ended.wait(LIMIT)


class Own(CancelledError):
    """A handler's own."""


@pytest.mark.parametrize("error", [CancelledError, asyncio.CancelledError, BrokenExecutor, Own])
def test_what_a_handler_raises_is_its_own_even_if_executors_raise_it_too(error: type[BaseException]) -> None:
    def handler(_payload: Any) -> None:
        raise error("mine")

    for executor in (Fake, lambda: ThreadPoolExecutor(1)):
        pool = Pool(executor)
        with pytest.raises(RemoteError, match=f"{error.__name__}: mine"):
            pool.call(handler, {}, None, lambda _: None)
        pool.stop()


def test_a_call_that_cannot_be_pickled_is_the_fault_of_its_handler() -> None:
    class Remote(Fake):
        def submit(self, fn: Callable[..., Any], /, *_args: Any, **_kwargs: Any) -> Future[Any]:
            pickle.dumps(fn)
            raise AssertionError

    made: list[Executor] = []

    def factory() -> Executor:
        made.append(Remote())
        return made[-1]

    pool = Pool(factory)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pool.call(lambda _: 1, {}, None, lambda _: None)
    assert len(made) == 1
    pool.stop()


# What becomes of a job that was cut off.


def test_a_job_that_its_executor_cuts_off_waits_longer_each_time_and_uses_no_retry() -> None:
    store = Store(max_retries=0)
    job_id = store.ask(EMAIL).id
    for attempt in range(1, 12):
        assert store.claim(job_id).attempts == attempt
        store.ask(CutOff(job_id, attempt, "BrokenProcessPool: it died"))
        job = store.ask(Get(job_id))
        assert (job.status, job.attempts) == ("pending", attempt)
        assert job.last_error == "the attempt was cut off by its executor: BrokenProcessPool: it died"
        assert (job.run_at - store.now).total_seconds() == min(2 ** (attempt - 1), 300)
        store.now = job.run_at
    store.claim(job_id)
    store.ask(Fail(job_id, 12, "broken"))
    assert store.ask(Get(job_id)).status == "failed"


def test_a_job_that_may_run_only_once_has_failed_when_its_executor_cuts_it_off() -> None:
    store = Store(on_crash="fail")
    job_id = store.ask(Submit("email", max_retries=5)).id
    store.claim(job_id)
    store.ask(CutOff(job_id, 1, "CancelledError: "))
    job = store.ask(Get(job_id))
    assert (job.status, job.attempts) == ("failed", 1)
    assert job.last_error.endswith("by its executor: CancelledError:  (GOFER_ON_CRASH=fail)")


def test_a_job_that_is_cut_off_after_a_cancel_is_cancelled() -> None:
    store = Store()
    job_id = store.ask(EMAIL).id
    store.claim(job_id)
    store.ask(Cancel(job_id))
    store.ask(CutOff(job_id, 1, "CancelledError: "))
    assert store.ask(Get(job_id)).status == "cancelled"


def test_health_is_degraded_while_there_is_no_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = Factory(Refusing(), OSError("no cluster"), Fake())
    monkeypatch.setattr("tests.jobs.refusing", factory)
    with start(Settings(executor="tests.jobs:refusing"), {"one": lambda _: 1}) as system:
        assert system.complaints() == []
        job_id = system.store.ask(Submit("one")).id
        eventually(
            lambda: (
                system.complaints()
                == ["jobs wait for an executor: no executor can be made: OSError: no cluster"]
            )
        )
        job = system.store.ask(Await(job_id))
        assert (job.status, job.attempts, system.complaints()) == ("completed", 1, [])
