"""What gunicorn's hooks do, with a worker and a master that only look like gunicorn's.

How the real ones go along with it is in test_shutdown.py and test_reloads.py.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from signal import SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGURG, SIGUSR1, SIGUSR2
from types import SimpleNamespace
from typing import Any

import falcon.testing
import pykka
import pytest
import uvloop
from gunicorn.arbiter import Arbiter

import actors
from actors import Await, Settings, Submit, System
from actors.errors import Draining
from actors.handlers import Function
from api import checks, master, server, serving, waiting
from api.reloads import Reloads
from api.serving import Serving
from api.watch import Watch
from tests import records
from tests.jobs import LIMIT, echo

#: For the moments of a stop: one that a test waits for, and one that never comes.
SOON = 0.05
NEVER = 3600.0

#: What gunicorn tells a worker.
END = "end behind the next answers"
END_NOW = "end now"
REOPEN = "reopen the log files"

#: All whose handling a worker, or a test, changes.
SIGNALS = (*master.STOP_SIGNALS, SIGURG, SIGHUP, SIGUSR1, SIGUSR2, signal.SIGWINCH, signal.SIGALRM)

each_stop_signal = pytest.mark.parametrize(
    "signum", [SIGTERM, SIGINT, SIGQUIT], ids=lambda signum: signum.name
)
each_database = pytest.mark.parametrize("database", ["jobs.db", ":memory:"])


class Lines(list[str]):
    """Gunicorn's log."""

    def error(self, message: str, *values: object) -> None:
        self.append(message % values)

    def warning(self, message: str, *values: object) -> None:
        self.append(message % values)

    def debug(self, message: str, *values: object) -> None:
        pass

    def reopen_files(self) -> None:
        pass


@dataclass
class Options:
    """Gunicorn's settings, as gunicorn.conf.py and gunicorn's defaults make them."""

    workers: int = 1
    worker_class_str: str = "asgi"
    preload_app: bool = False
    max_requests: int = 0
    reuse_port: bool = False
    graceful_timeout: int = 30
    backlog: int = 2048
    address: list[tuple[str, int] | str | int] = field(default_factory=list)
    #: Why its file refuses it at a reload.
    refusal: str = ""

    def on_reload(self, _master: Any) -> None:
        if self.refusal:
            raise SystemExit(self.refusal)


class FakeApp:
    """What gunicorn's master runs, whose next configuration a test gives."""

    def __init__(self) -> None:
        self.cfg: server.Config = Options()
        self.next: server.Config | str | int = Options()

    def reload(self) -> None:
        if isinstance(self.next, str | int):
            raise SystemExit(self.next)
        self.cfg = self.next


class FakeMaster:
    """A master of one worker process, except that it starts and reaps none."""

    def __init__(self) -> None:
        self.fake_app = FakeApp()
        self.app: server.App = self.fake_app
        self.cfg = self.app.cfg
        self.lines = Lines()
        self.log: server.GunicornLog = self.lines
        self.WORKERS: dict[int, Any] = {11: SimpleNamespace(tmp=SimpleNamespace(last_update=lambda: 1.0))}
        self.SIG_QUEUE: SimpleQueue[int] = SimpleQueue()
        self.num_workers = 1
        self.handle_hup: Callable[[], None] = lambda: None
        self.handle_ttin: Callable[[], None] = lambda: None
        self.handle_ttou: Callable[[], None] = lambda: None
        self.looks = 0
        self.murder_workers: Callable[[], None] = self._look

    def setup(self, app: server.App) -> None:
        self.cfg = app.cfg
        self.num_workers = app.cfg.workers

    def _look(self) -> None:
        self.looks += 1


class FakeWorker:
    """A worker that serves and ends as gunicorn's does, except that it only looks when it is woken up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.options = Options()
        self.cfg: server.Config = self.options
        self.lines = Lines()
        self.log: server.GunicornLog = self.lines
        self.ppid = os.getppid()
        self.predecessors: list[int] = []
        self.loop = loop
        self.servers: list[asyncio.Server] = []
        self.sockets: list[Any] = [socket.create_server(("127.0.0.1", 0))]
        self.address = self.sockets[0].getsockname()
        self.nr_conns = 0
        self.asgi: Any = None
        #: What it is told, and whatever else a test wants to know the order of.
        self.told: list[str] = []
        #: What a test does when the worker is told so.
        self.then: dict[str, Callable[[], object]] = {}
        self._is_alive = True
        self._is_over = asyncio.Event()
        for signum, handle in {
            SIGQUIT: self.handle_quit_signal,
            SIGTERM: self.handle_exit_signal,
            SIGINT: self.handle_quit_signal,
            SIGUSR1: self._reopen_files,
            signal.SIGWINCH: lambda: None,
        }.items():
            loop.add_signal_handler(signum, handle)

    def notify(self) -> None:
        pass

    def handle_exit_signal(self) -> None:
        self._is_alive = False
        self._note(END)

    def handle_quit_signal(self) -> None:
        self._is_alive = False
        self._is_over.set()
        self._note(END_NOW)

    def run(self, once_it_serves: Callable[[], object] = lambda: None) -> None:
        """Serve until the end."""
        try:
            self.loop.run_until_complete(self._serve(once_it_serves))
        finally:
            self.close()

    def close(self) -> None:
        """End what it holds; may be called again."""
        for accepting in self.servers:
            accepting.close()
        self.loop.close()
        for listening in self.sockets:
            listening.close()

    async def _serve(self, once_it_serves: Callable[[], object]) -> None:
        for listening in self.sockets:
            self.servers.append(await self.loop.create_server(asyncio.Protocol, sock=listening))
        self.loop.call_soon(once_it_serves)
        with contextlib.suppress(asyncio.CancelledError):
            if self._is_alive:
                await self._is_over.wait()
        if self.nr_conns:
            await self._is_over.wait()

    def _reopen_files(self) -> None:
        self._note(REOPEN)

    def _note(self, what: str) -> None:
        self.told.append(what)
        self.then.get(what, lambda: None)()


class Process:
    """A worker process of the service, except that it is this one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.worker = FakeWorker(loop)
        self.handlers: dict[str, Function] = {"echo": echo}
        self.serving: Serving
        #: What was started, if it was.
        self.system: System | None = None

    def begin(self, database: Path | str = ":memory:", **settings: Any) -> None:
        """Do what gunicorn does before it serves."""
        given = Settings(database=str(database), **settings)
        self.serving = Serving(self.worker, given, self.start)
        self.serving.begin()

    def start(self, settings: Settings, **given: Any) -> System:
        """Start the actors, with the test's handlers unless the settings name some."""
        self.system = actors.start(settings, None if settings.handlers else self.handlers, **given)
        return self.system

    def stop(self, signum: signal.Signals = SIGTERM) -> None:
        """Serve, and be stopped by a signal."""
        self.worker.run(lambda: signal.raise_signal(signum))

    def submit(self, job_type: str = "echo") -> str:
        """Submit a job, and return its id."""
        assert self.system is not None
        return str(self.system.store.ask(Submit(job_type, {"number": 1}), block=True, timeout=LIMIT).id)

    def close(self) -> None:
        """End whatever is left."""
        self.worker.close()
        if self.system is not None:
            self.system.stop(grace=0)


class Gone(BaseException):
    """The process would be gone now."""


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    """Take back what a worker changes in its process."""
    handlers = [(signum, signal.getsignal(signum)) for signum in SIGNALS]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    threshold = gc.get_threshold()
    yield
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)  # Drops what still waits.
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for signum, handler in handlers:
        signal.signal(signum, handler)
    gc.set_threshold(*threshold)
    gc.unfreeze()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def process(request: pytest.FixtureRequest) -> Iterator[Process]:
    process = Process(request.param())
    yield process
    process.close()


@pytest.fixture
def drains(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, bool]]:
    """Return where each drain of a system is noted: its grace, and whether it admits jobs."""
    noted: list[tuple[float, bool]] = []
    drain = System.drain

    def note_and_drain(system: System, grace: float, *, admits: bool = False) -> None:
        noted.append((grace, admits))
        drain(system, grace, admits=admits)

    monkeypatch.setattr(System, "drain", note_and_drain)
    return noted


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    """Return what sets after how many seconds gunicorn is told, and the connections are closed."""

    def set_moments(farewell: float, connection_grace: float) -> None:
        monkeypatch.setattr(serving, "FAREWELL", farewell)
        monkeypatch.setattr(serving, "CONNECTION_GRACE", connection_grace)

    return set_moments


# In the master.


def test_the_options_of_the_service_itself_are_accepted() -> None:
    checks.check(Options(), Settings())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (Options(workers=2), "2 workers"),
        (Options(worker_class_str="gthread"), "worker class gthread"),
        (Options(preload_app=True), "preload_app"),
        (Options(max_requests=5), "max_requests"),
        (Options(reuse_port=True), "reuse_port"),
        (Options(graceful_timeout=20), "graceful_timeout 20"),
    ],
    ids=["workers", "worker_class", "preload_app", "max_requests", "reuse_port", "graceful_timeout"],
)
def test_an_option_with_which_one_process_would_not_own_the_actors_is_refused_in_one_line(
    options: Options, named: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        checks.check(options, Settings())
    (line,) = str(ended.value.code).splitlines()
    assert line.startswith(f"gofer: cannot run with {named}: ")


@each_stop_signal
def test_stop_signals_wait_while_the_master_forks(
    signum: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_fork: list[Callable[[], object]] = []
    monkeypatch.setattr(os, "register_at_fork", lambda *, after_in_parent: after_fork.append(after_in_parent))
    arrived: list[int] = []
    signal.signal(signum, lambda number, _: arrived.append(number))
    master.release_after_fork()
    master.hold_stop_signals()
    signal.raise_signal(signum)
    assert arrived == []
    (release,) = after_fork
    release()
    assert arrived == [signum]


@each_stop_signal
def test_the_master_takes_each_stop_signal_as_a_graceful_one(signum: signal.Signals) -> None:
    arrived = threading.Event()
    signal.signal(SIGTERM, lambda *_: arrived.set())
    master.stop_gracefully_at_each_signal()
    signal.raise_signal(signum)
    assert arrived.wait(LIMIT)


@pytest.mark.parametrize("signum", ["ttin", "ttou"])
def test_a_signal_that_changes_the_number_of_workers_changes_nothing(signum: str) -> None:
    gunicorn = FakeMaster()
    master.keep_one_worker(gunicorn)
    getattr(gunicorn, f"handle_{signum}")()
    assert gunicorn.num_workers == 1
    (line,) = gunicorn.lines
    assert "SIGTTIN and SIGTTOU are ignored" in line


def test_a_replacement_of_the_master_is_announced_to_every_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *given: sent.append(given))
    gunicorn = FakeMaster()
    gunicorn.WORKERS = {11: None, 12: None}
    master.announce_replacement(gunicorn)
    assert sent == [(11, master.IS_REPLACED), (12, master.IS_REPLACED)]


def test_a_worker_that_is_gone_keeps_no_other_from_hearing_of_a_replacement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[int] = []

    def kill(pid: int, _signum: int) -> None:
        if pid == 11:
            raise ProcessLookupError
        sent.append(pid)

    monkeypatch.setattr(os, "kill", kill)
    gunicorn = FakeMaster()
    gunicorn.WORKERS = {11: None, 12: None}
    master.announce_replacement(gunicorn)
    assert sent == [12]


# A reload in the master.


def test_a_reload_wants_one_process_more_until_one_has_ended() -> None:
    gunicorn = FakeMaster()
    reloads = Reloads(gunicorn)
    gunicorn.handle_hup()
    assert gunicorn.cfg is gunicorn.fake_app.next
    assert gunicorn.num_workers == 2
    reloads.ended()
    assert gunicorn.num_workers == 1
    assert gunicorn.SIG_QUEUE.empty()


def test_a_reload_just_after_the_only_process_has_died_wants_no_second_one() -> None:
    gunicorn = FakeMaster()
    Reloads(gunicorn)
    gunicorn.WORKERS = {}
    gunicorn.handle_hup()
    assert gunicorn.num_workers == 1


def test_reloads_during_a_reload_are_acted_on_after_it_as_one() -> None:
    gunicorn = FakeMaster()
    reloads = Reloads(gunicorn)
    for _ in range(3):
        gunicorn.handle_hup()
    assert gunicorn.num_workers == 2
    reloads.ended()
    assert gunicorn.SIG_QUEUE.get_nowait() == SIGHUP
    assert gunicorn.SIG_QUEUE.empty()


def test_a_reload_ends_the_process_of_an_earlier_one_that_is_still_loading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *given: sent.append(given))
    gunicorn = FakeMaster()
    Reloads(gunicorn)
    gunicorn.handle_hup()
    gunicorn.WORKERS[12] = SimpleNamespace(tmp=SimpleNamespace(last_update=time.time))
    gunicorn.handle_hup()
    assert sent == [(12, SIGTERM)]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("gofer: GOFER_WORKERS is 'many'", "goes on: GOFER_WORKERS is 'many'"),
        (1, "goes on: gunicorn's configuration cannot be loaded"),
        (Options(address=[("127.0.0.1", 1)]), "HOST and PORT cannot change"),
        (
            Options(workers=2, refusal="gofer: cannot run with 2 workers"),
            "goes on: cannot run with 2 workers",
        ),
    ],
    ids=["a setting", "the file", "the address", "an option"],
)
def test_a_configuration_that_cannot_be_used_is_refused_in_one_line_and_changes_nothing(
    wrong: Options | str | int, said: str
) -> None:
    gunicorn = FakeMaster()
    before = gunicorn.cfg
    Reloads(gunicorn)
    gunicorn.fake_app.next = wrong
    gunicorn.handle_hup()
    assert gunicorn.cfg is gunicorn.app.cfg is before
    assert gunicorn.num_workers == 1
    (line,) = gunicorn.lines
    assert said in line


# What the master makes of a worker that gives no sign of life.


def test_after_a_sleep_the_master_gives_a_worker_time_before_it_ends_the_silent_one() -> None:
    gunicorn, moments = FakeMaster(), iter([0, 1, 2, 60, 60.1, 61, 62, 63, 63.9, 64, 65])
    Watch(gunicorn, lambda: next(moments))
    looks = []
    for _ in range(10):
        gunicorn.murder_workers()
        looks.append(gunicorn.looks)
    assert looks == [1, 2, 2, 2, 2, 2, 2, 2, 3, 4]


# The start of a worker.


def test_a_worker_that_has_begun_answers_with_its_actors(process: Process) -> None:
    process.begin()
    client = falcon.testing.TestClient(process.worker.asgi)
    assert client.simulate_get("/health", host="localhost").json == {"status": "ok"}
    assert [job["id"] for job in client.simulate_get("/jobs", host="localhost").json] == []
    job_id = process.submit()
    assert [job["id"] for job in client.simulate_get("/jobs", host="localhost").json] == [job_id]
    assert process.worker.lines == []


def test_as_many_connections_wait_as_gunicorn_was_set_to(process: Process) -> None:
    asked_for: list[int] = []

    async def create_server(*_: object, backlog: int = 100, **__: object) -> None:
        asked_for.append(backlog)

    loop: Any = process.worker.loop
    loop.create_server = create_server
    process.worker.options.backlog = 77
    process.begin()
    loop.run_until_complete(loop.create_server(asyncio.Protocol))
    assert asked_for == [77]


def test_the_garbage_collector_leaves_alone_what_was_there_at_the_start(process: Process) -> None:
    process.begin()
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == (50_000, 20, 20)


@pytest.mark.parametrize("path", ["", "nowhere/jobs.db"], ids=["a folder", "a folder that is not there"])
def test_a_worker_that_cannot_own_its_database_fails_to_boot_with_one_line(
    path: str, process: Process, tmp_path: Path
) -> None:
    assert_fails_to_boot(
        process, f"GOFER_DATABASE is '{tmp_path / path}', which cannot be opened", tmp_path / path
    )


def test_a_worker_that_cannot_open_its_database_fails_to_boot_with_one_line(
    process: Process, tmp_path: Path
) -> None:
    (tmp_path / "jobs.db").write_bytes(b"this is not a database" * 100)
    assert_fails_to_boot(process, f"GOFER_DATABASE is '{tmp_path / 'jobs.db'}'", tmp_path / "jobs.db")
    assert_free(tmp_path / "jobs.db")


def test_a_worker_that_cannot_load_its_handlers_fails_to_boot_with_one_line(process: Process) -> None:
    assert_fails_to_boot(process, "GOFER_HANDLERS", ":memory:", handlers="tests.nowhere:handlers")


def assert_fails_to_boot(process: Process, reason: str, database: Path | str, **settings: Any) -> None:
    """See that gunicorn will not try again, and that one line says why."""
    before = set(threading.enumerate())
    with pytest.raises(SystemExit) as ended:
        process.begin(database, **settings)
    assert ended.value.code == Arbiter.WORKER_BOOT_ERROR
    (line,) = process.worker.lines
    assert line.startswith("gofer: ")
    assert reason in line
    assert "\n" not in line
    assert process.worker.asgi is None
    assert set(threading.enumerate()) == before


def assert_free(database: Path) -> None:
    """See that nobody owns the database."""
    ownership = actors.own(str(database), wait=False)
    assert ownership is not None
    ownership.release()


class Once(logging.Handler):
    """Does something when a line of the log says so."""

    def __init__(self, line: str, action: Callable[[], object]) -> None:
        super().__init__()
        self._line = line
        self._action = action

    def emit(self, record: logging.LogRecord) -> None:
        if self._line in record.getMessage():
            self._action()


@each_stop_signal
def test_a_stop_signal_ends_a_worker_that_waits_for_its_database(
    signum: signal.Signals, process: Process, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    owner = actors.own(str(tmp_path / "jobs.db"), wait=False)
    assert owner is not None
    kill = threading.Timer(SOON, lambda: os.kill(os.getpid(), signum))
    once = Once("waiting for the owner", kill.start)
    caplog.set_level(logging.INFO, "gofer")
    logging.getLogger("gofer").addHandler(once)
    try:
        with pytest.raises(SystemExit) as ended:
            process.begin(tmp_path / "jobs.db")
    finally:
        logging.getLogger("gofer").removeHandler(once)
        owner.release()
    assert ended.value.code == 0
    assert process.system is None
    assert process.worker.lines == []


def test_a_worker_that_waits_for_its_database_ends_with_its_master(process: Process, tmp_path: Path) -> None:
    owner = actors.own(str(tmp_path / "jobs.db"), wait=False)
    assert owner is not None
    process.worker.ppid = -1
    with pytest.raises(SystemExit) as ended:
        process.begin(tmp_path / "jobs.db")
    owner.release()
    assert ended.value.code == 0
    assert process.system is None


@each_stop_signal
def test_a_stop_signal_that_came_before_the_worker_could_act_ends_it_when_it_can(
    signum: signal.Signals, process: Process
) -> None:
    master.hold_stop_signals()
    signal.raise_signal(signum)
    with pytest.raises(SystemExit) as ended:
        process.begin()
    assert ended.value.code == 0
    assert process.system is None
    process.serving.end()


@each_stop_signal
def test_a_stop_signal_while_the_actors_start_is_acted_on_when_they_have(
    signum: signal.Signals, process: Process, drains: list[tuple[float, bool]]
) -> None:
    def start(settings: Settings, **given: Any) -> System:
        signal.raise_signal(signum)
        return process.start(settings, **given)

    before = set(threading.enumerate())
    process.serving = Serving(process.worker, Settings(), start)
    process.serving.begin()
    assert drains == []
    process.worker.run()
    assert drains == [(25, False)]
    process.serving.end()
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("signum", [SIGHUP, SIGUSR2], ids=lambda signum: signum.name)
def test_a_signal_that_is_meant_for_the_master_does_a_worker_no_harm(
    signum: signal.Signals, process: Process
) -> None:
    process.begin()
    signal.raise_signal(signum)
    assert process.worker.told == []


# The stop of a worker.


@each_stop_signal
def test_the_first_stop_signal_closes_the_servers_and_drains_the_system(
    signum: signal.Signals, process: Process, drains: list[tuple[float, bool]]
) -> None:
    refused: list[bool] = []
    process.worker.then[END] = lambda: refused.append(is_refused(process.worker.address))
    process.begin()
    process.stop(signum)
    assert refused == [True]
    assert drains == [(25, False)]


def is_refused(address: tuple[str, int]) -> bool:
    """Tell whether nobody listens there."""
    try:
        socket.create_connection(address, timeout=LIMIT).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_running_job_has_the_grace_that_is_set(process: Process, drains: list[tuple[float, bool]]) -> None:
    process.begin(grace=7)
    process.stop()
    assert drains == [(7, False)]


@pytest.mark.parametrize("second", [SIGTERM, SIGINT, SIGQUIT], ids=lambda signum: signum.name)
def test_a_second_stop_signal_changes_nothing(
    second: signal.Signals, process: Process, drains: list[tuple[float, bool]]
) -> None:
    def signal_twice() -> None:
        signal.raise_signal(SIGTERM)
        signal.raise_signal(second)

    process.worker.then[END] = lambda: signal.raise_signal(second)
    process.begin()
    process.worker.run(signal_twice)
    signal.raise_signal(second)
    assert process.worker.told == [END]
    assert drains == [(25, False)]


def test_with_no_connection_open_gunicorn_is_told_immediately(
    process: Process, moments: Callable[[float, float], None]
) -> None:
    moments(NEVER, NEVER)
    process.begin()
    process.stop()
    assert process.worker.told == [END]


def test_with_a_connection_open_gunicorn_is_told_after_the_farewell(
    process: Process, moments: Callable[[float, float], None]
) -> None:
    worker = process.worker

    def leave() -> None:
        worker.nr_conns = 0

    def stop() -> None:
        worker.loop.call_later(SOON / 2, worker.told.append, "still in the farewell")
        signal.raise_signal(SIGTERM)

    moments(SOON, NEVER)
    worker.nr_conns, worker.then[END] = 1, leave
    process.begin()
    worker.run(stop)
    assert worker.told == ["still in the farewell", END]


def test_a_connection_is_closed_after_the_grace_for_connections(
    process: Process, moments: Callable[[float, float], None]
) -> None:
    worker = process.worker

    def stop() -> None:
        worker.loop.call_later(SOON / 2, worker.told.append, "still in the grace")
        signal.raise_signal(SIGTERM)

    moments(NEVER, SOON)
    worker.nr_conns = 1
    process.begin()
    worker.run(stop)
    assert worker.told == ["still in the grace", END_NOW]


def test_a_connection_that_stays_silent_is_first_left_to_gunicorn_and_then_closed(
    process: Process, moments: Callable[[float, float], None]
) -> None:
    moments(SOON / 2, SOON)
    process.worker.nr_conns = 1
    process.begin()
    process.stop()
    assert process.worker.told == [END, END_NOW]


def test_the_requests_go_on_when_gunicorn_is_woken_up(
    process: Process, moments: Callable[[float, float], None]
) -> None:
    worker, is_told = process.worker, asyncio.Event()

    async def answer() -> None:
        await is_told.wait()
        worker.told.append("answered")
        worker.handle_quit_signal()

    def ask_and_stop() -> None:
        requests.append(worker.loop.create_task(answer()))
        signal.raise_signal(SIGTERM)

    requests: list[asyncio.Task[None]] = []
    moments(SOON, NEVER)
    worker.nr_conns, worker.then[END] = 1, is_told.set
    process.begin()
    worker.run(ask_and_stop)
    assert worker.told == [END, "answered", END_NOW]


def test_a_stop_before_gunicorn_serves_breaks_nothing_off(process: Process) -> None:
    process.worker.sockets.append(socket.create_server(("127.0.0.1", 0)))
    process.worker.sockets.append(socket.create_server(("127.0.0.1", 0)))
    process.begin()
    signal.raise_signal(SIGTERM)
    process.worker.run()
    assert process.worker.told == [END]
    assert len(process.worker.servers) == 3


def test_the_signal_to_reopen_log_files_is_gunicorns_until_the_stop_and_nobodys_after_it(
    process: Process,
) -> None:
    worker = process.worker
    worker.then[REOPEN] = lambda: signal.raise_signal(SIGTERM)
    worker.then[END] = lambda: signal.raise_signal(SIGUSR1)
    process.begin()
    worker.run(lambda: signal.raise_signal(SIGUSR1))
    signal.raise_signal(SIGUSR1)
    assert worker.told == [REOPEN, END]


def test_after_the_stop_signal_each_answer_is_its_connections_last(process: Process) -> None:
    process.begin()
    client = falcon.testing.TestClient(process.worker.asgi)
    assert "Connection" not in client.simulate_get("/jobs", host="localhost").headers
    process.stop()
    assert client.simulate_get("/jobs", host="localhost").headers["Connection"] == "close"


# A hand-over.


@dataclass
class LongJob:
    """A job that runs until a test lets it end."""

    is_running: threading.Event = field(default_factory=threading.Event)
    may_end: threading.Event = field(default_factory=threading.Event)

    def __call__(self, _payload: dict[str, Any]) -> None:
        self.is_running.set()
        assert self.may_end.wait(LIMIT)


def begin_with_long_job(process: Process, database: Path | str) -> LongJob:
    job = LongJob()
    process.handlers["long"] = job.__call__
    process.begin(database)
    process.submit("long")
    assert job.is_running.wait(LIMIT)
    return job


def test_who_hands_over_stores_jobs_until_the_running_one_has_ended_and_the_next_process_runs_them(
    process: Process, tmp_path: Path, drains: list[tuple[float, bool]]
) -> None:
    job = begin_with_long_job(process, tmp_path / "jobs.db")
    submitted: list[str] = []

    def submit_and_let_go() -> None:
        submitted.append(process.submit())
        assert process.worker.servers[0].is_serving()
        job.may_end.set()

    def hand_over() -> None:
        signal.raise_signal(serving.HANDS_OVER)
        process.worker.loop.call_later(SOON, submit_and_let_go)

    process.worker.run(hand_over)
    assert drains[0] == (25, True)
    assert process.worker.told == [END]
    assert_free(tmp_path / "jobs.db")
    process.serving.end()
    with actors.start(Settings(database=str(tmp_path / "jobs.db")), {"echo": echo}) as system:
        run = system.store.ask(Await(submitted[0]), block=True, timeout=LIMIT)
    assert (run.status, run.attempts) == ("completed", 1)
    assert {job.status for job in records.stored(tmp_path / "jobs.db")} == {"completed"}


def test_a_stop_signal_makes_a_stop_of_a_hand_over_whose_jobs_still_run(
    process: Process, tmp_path: Path, drains: list[tuple[float, bool]]
) -> None:
    job = begin_with_long_job(process, tmp_path / "jobs.db")

    def hand_over() -> None:
        signal.raise_signal(serving.HANDS_OVER)
        process.worker.loop.call_later(SOON, signal.raise_signal, SIGTERM)

    process.worker.run(hand_over)
    assert [admits for _, admits in drains] == [True, False]
    with pytest.raises(Draining):
        process.submit()
    job.may_end.set()
    process.serving.end()
    assert {job.status for job in records.stored(tmp_path / "jobs.db")} == {"completed"}


@pytest.mark.parametrize("signum", [serving.HANDS_OVER, SIGTERM], ids=lambda signum: signum.name)
def test_a_signal_once_the_database_is_being_handed_over_changes_nothing(
    signum: signal.Signals, process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.begin(tmp_path / "jobs.db")
    stop = System.stop

    def be_signalled_and_stop(system: System) -> None:
        os.kill(os.getpid(), signum)
        stop(system)

    monkeypatch.setattr(System, "stop", be_signalled_and_stop)
    process.worker.run(lambda: signal.raise_signal(serving.HANDS_OVER))
    process.serving.end()
    assert process.worker.told == [END]


def test_who_is_told_of_another_master_hands_over_at_the_stop(
    process: Process, tmp_path: Path, drains: list[tuple[float, bool]]
) -> None:
    process.begin(tmp_path / "jobs.db")
    signal.raise_signal(master.IS_REPLACED)
    process.stop()
    assert drains[0] == (25, True)
    assert_free(tmp_path / "jobs.db")


def test_who_stops_without_a_hand_over_admits_no_job(process: Process, tmp_path: Path) -> None:
    process.begin(tmp_path / "jobs.db")
    process.stop()
    with pytest.raises(Draining):
        process.submit()


def test_who_hands_over_in_memory_admits_no_job(process: Process) -> None:
    process.begin()
    process.stop(serving.HANDS_OVER)
    with pytest.raises(Draining):
        process.submit()


def test_who_is_followed_while_it_waits_for_its_database_ends(process: Process, tmp_path: Path) -> None:
    owner = actors.own(str(tmp_path / "jobs.db"), wait=False)
    assert owner is not None
    kill = threading.Timer(SOON, lambda: os.kill(os.getpid(), serving.HANDS_OVER))
    kill.start()
    with pytest.raises(SystemExit) as ended:
        process.begin(tmp_path / "jobs.db")
    owner.release()
    assert ended.value.code == 0


def told_predecessors(monkeypatch: pytest.MonkeyPatch, process: Process) -> list[tuple[int, int]]:
    """Return where it is noted what the processes are told that this one is to follow."""
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *given: told.append(given))
    process.worker.predecessors = [11]
    return told


@each_database
def test_who_can_take_over_says_so_to_the_process_that_serves(
    database: str, process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = told_predecessors(monkeypatch, process)
    process.begin(database if database == ":memory:" else tmp_path / database)
    assert told == [(11, serving.HANDS_OVER)]
    assert [line for line in process.worker.lines if "starts without any" in line] == (
        process.worker.lines if database == ":memory:" else []
    )


def test_who_waits_for_a_process_that_does_not_listen_says_it_again(
    process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = actors.own(str(tmp_path / "jobs.db"), wait=False)
    assert owner is not None
    told = told_predecessors(monkeypatch, process)
    monkeypatch.setattr(waiting, "LOOK", SOON)

    def kill(pid: int, signum: int) -> None:
        told.append((pid, signum))
        if len(told) == 3:
            owner.release()

    monkeypatch.setattr(os, "kill", kill)
    process.begin(tmp_path / "jobs.db")
    assert told[:3] == [(11, serving.HANDS_OVER)] * 3


def test_who_cannot_load_its_handlers_leaves_the_process_that_serves_alone(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = told_predecessors(monkeypatch, process)
    with pytest.raises(SystemExit) as ended:
        process.begin(handlers="tests.nowhere:handlers")
    assert ended.value.code == 0
    assert told == []
    (line,) = process.worker.lines
    assert line.startswith("gofer: the reload failed, and the service goes on as it was: GOFER_HANDLERS")


@pytest.mark.parametrize("path", ["nowhere/jobs.db", "other.db"], ids=["nowhere", "not ours"])
def test_who_cannot_use_another_database_leaves_the_process_that_serves_alone(
    path: str, process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.db").write_bytes(b"this is not a database" * 100)
    told = told_predecessors(monkeypatch, process)
    with pytest.raises(SystemExit) as ended:
        process.begin(tmp_path / path)
    assert ended.value.code == 0
    assert told == []
    (line,) = process.worker.lines
    assert line.startswith("gofer: the reload failed, and the service goes on as it was: GOFER_DATABASE")


# The end of a worker.


class Helper(pykka.ThreadingActor):
    """An actor that a handler has started."""


def test_the_end_stops_every_actor(process: Process, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    process.begin(tmp_path / "jobs.db", workers=3)
    Helper.start()
    started = set(threading.enumerate()) - before
    assert len(started) == 5
    process.stop()
    process.serving.end()
    for thread in started:
        thread.join(LIMIT)
    assert set(threading.enumerate()) == before
    assert_free(tmp_path / "jobs.db")


def test_the_end_stops_the_executor(process: Process) -> None:
    before = set(threading.enumerate())
    process.begin(executor="tests.jobs:one_thread")
    assert process.system is not None
    job = process.system.store.ask(Await(process.submit()), block=True, timeout=LIMIT)
    assert job.status == "completed"
    names = sorted(thread.name.partition("-")[0] for thread in set(threading.enumerate()) - before)
    assert names == ["JobStore", "ThreadPoolExecutor", "Worker", "executor", "progress"]
    process.stop()
    process.serving.end()
    assert set(threading.enumerate()) == before


def before_all_are_stopped(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something in the middle of the end: the system drains, and its actors are to be stopped next."""
    stop_workers = System.stop_workers

    def act_and_stop(system: System) -> None:
        action()
        stop_workers(system)

    monkeypatch.setattr(System, "stop_workers", act_and_stop)


def test_the_end_waits_for_the_running_job(
    process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_running, may_end = threading.Event(), threading.Event()

    def wait(_payload: dict[str, Any]) -> None:
        is_running.set()
        assert may_end.wait(LIMIT)

    process.handlers["wait"] = wait
    process.begin(tmp_path / "jobs.db")
    process.submit("wait")
    process.submit("wait")
    assert is_running.wait(LIMIT)
    process.stop()
    before_all_are_stopped(monkeypatch, may_end.set)
    process.serving.end()
    jobs = records.stored(tmp_path / "jobs.db")
    assert [(job.status, job.attempts) for job in jobs] == [("completed", 1), ("pending", 0)]


def test_a_job_that_outlives_the_grace_is_given_back(process: Process, tmp_path: Path) -> None:
    is_running = threading.Event()

    def go_on(_payload: dict[str, Any]) -> Generator[float]:
        while True:
            is_running.set()
            yield 0.5

    process.handlers["go on"] = go_on
    process.begin(tmp_path / "jobs.db", grace=0)
    process.submit("go on")
    assert is_running.wait(LIMIT)
    process.stop()
    process.serving.end()
    (job,) = records.stored(tmp_path / "jobs.db")
    assert (job.status, job.attempts) == ("pending", 0)


def test_the_end_after_a_boot_that_failed_does_nothing(
    process: Process, tmp_path: Path, drains: list[tuple[float, bool]]
) -> None:
    with pytest.raises(SystemExit):
        process.begin(tmp_path)
    helper = Helper.start()
    process.serving.end()
    assert drains == []
    assert helper.is_alive()
    helper.stop()


def test_the_end_gives_the_grace_to_running_jobs_if_no_signal_came_before_it(
    process: Process, drains: list[tuple[float, bool]]
) -> None:
    """As when gunicorn ends the loop by itself, because its master was killed."""
    process.begin(grace=1)
    process.worker.run(process.worker.handle_quit_signal)
    assert drains == []
    process.serving.end()
    assert drains[0] == (1, False)


@each_stop_signal
def test_a_stop_signal_that_comes_only_during_the_end_does_not_disturb_it(
    signum: signal.Signals, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(threading.enumerate())
    process.begin(workers=2)
    process.worker.run(process.worker.handle_quit_signal)
    before_all_are_stopped(monkeypatch, lambda: signal.raise_signal(signum))
    process.serving.end()
    assert set(threading.enumerate()) == before


# A JobStore that is lost.


@pytest.fixture
def exit_code(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return where the exit code is noted of a process that ends at once."""
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise Gone

    monkeypatch.setattr(os, "_exit", leave)
    return codes


def test_the_end_without_a_jobstore_is_immediate(
    process: Process, exit_code: list[int], drains: list[tuple[float, bool]]
) -> None:
    process.begin()
    assert process.system is not None
    process.system.drain(0)
    process.system.store.stop()
    drains.clear()
    with pytest.raises(Gone):
        process.serving.end()
    assert exit_code == [1]
    assert drains == []


def test_a_worker_that_loses_its_jobstore_while_it_serves_ends_by_itself(
    process: Process, exit_code: list[int]
) -> None:
    def lose() -> None:
        assert process.system is not None
        process.system.store.stop(block=False)

    process.begin()
    process.worker.run(lose)
    assert process.worker.told == [END]
    with pytest.raises(Gone):
        process.serving.end()
    assert exit_code == [1]
