"""A start that fails leaves nothing behind and says why in one line; so does every way to start wrongly."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pykka
import pytest

from actors import GoferError, Settings, Submit, own, start
from actors.errors import HandlerError, SettingError, StartFailed, StorageFailed
from actors.store import Database, JobStore, Ledger
from api import checks
from tests import jobs
from tests.service import COMMAND, PATIENCE, TOP, Setting, running

#: Seconds that any refusal may take, on a busy machine twice what is promised.
PROMPT = 10.0

Fault = Callable[[pytest.MonkeyPatch], object]


def no_thread(name: str, number: int) -> Fault:
    """Return what lets the system have no thread when the so-manyth of this name is to start."""

    def break_it(patch: pytest.MonkeyPatch) -> None:
        begin = threading.Thread.start
        seen: list[str] = []

        def begin_or_not(thread: threading.Thread) -> None:
            if thread.name.startswith(name):
                seen.append(thread.name)
                if len(seen) == number:
                    raise RuntimeError("can't start new thread")
            begin(thread)

        patch.setattr(threading.Thread, "start", begin_or_not)

    return break_it


def failing(owner: object, method: str, error: BaseException) -> Fault:
    """Return what makes a step fail."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return lambda patch: patch.setattr(owner, method, fail)


FAULTS: dict[str, tuple[Fault, type[BaseException]]] = {
    "the JobStore's thread": (no_thread("JobStore", 1), StartFailed),
    "the first Worker's thread": (no_thread("Worker", 1), StartFailed),
    "the last Worker's thread": (no_thread("Worker", 4), StartFailed),
    "the ledger": (failing(Database, "last_id", ValueError("no id")), StorageFailed),
    "the file's check": (failing(Ledger, "__init__", MemoryError()), StorageFailed),
    "the JobStore": (failing(JobStore, "__init__", KeyboardInterrupt()), KeyboardInterrupt),
    "the recovery": (failing(Ledger, "_recover_crashed", ValueError("no row")), StorageFailed),
}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Return a file that has a pending job."""
    path = tmp_path / "jobs.db"
    with start(Settings(database=str(path)), {"other": jobs.echo}) as system:
        system.drain(0)
    with start(Settings(database=str(path)), {"other": jobs.echo}) as system:
        system.store.ask(Submit("other", delay=3600))
    return path


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@contextlib.contextmanager
def nothing_is_left(database: Path) -> Iterator[None]:
    """See that there are as many threads, actors and descriptors as before, and that the file is the same."""
    threads, files = set(threading.enumerate()), descriptors()
    content = database.read_bytes()
    yield
    assert set(threading.enumerate()) == threads
    assert pykka.ActorRegistry.get_all() == []
    assert descriptors() == files
    assert database.read_bytes() == content
    assert {path.name for path in database.parent.iterdir()} == {"jobs.db", "jobs.db-lock"}
    ownership = own(str(database), wait=False)
    assert ownership is not None
    ownership.release()


@pytest.mark.parametrize("step", FAULTS)
def test_whatever_step_of_a_start_fails_all_before_it_is_undone(
    step: str, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it, error = FAULTS[step]
    settings = Settings(database=str(database), workers=4)
    with nothing_is_left(database), monkeypatch.context() as patch:
        break_it(patch)
        with pytest.raises(error):
            start(settings, {"other": jobs.echo})
    with start(settings, {"other": jobs.echo}) as system:
        assert system.pending == 1


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"handlers": "tests.nowhere:handlers"}, "GOFER_HANDLERS is 'tests.nowhere:handlers'"),
        ({"handlers": "tests.test_starts:TOP"}, "must name a mapping"),
        ({"executor": "tests.test_starts:broken"}, "GOFER_EXECUTOR is 'tests.test_starts:broken'"),
        ({"executor": "tests.test_starts:leaving"}, "failed to make one"),
        ({}, "no handlers are set"),
    ],
    ids=["not there", "no mapping", "executor fails", "executor exits", "none"],
)
def test_what_cannot_run_jobs_starts_nothing(given: dict[str, str], reason: str, database: Path) -> None:
    with nothing_is_left(database):
        settings = Settings(database=str(database), **given)  # type: ignore[arg-type]
        handlers = {"other": jobs.echo} if "executor" in given else None
        with pytest.raises((HandlerError, SettingError), match=reason):
            start(settings, handlers)


def broken() -> object:
    raise OSError("no processes left")


def leaving() -> object:
    sys.exit("this module is a script")


def test_a_thread_that_cannot_start_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    no_thread("Worker", 2)(monkeypatch)
    with pytest.raises(StartFailed) as refusal:
        start(Settings(workers=3))
    assert str(refusal.value).startswith("cannot start a Worker: can't start new thread; allow ")


@pytest.mark.parametrize(
    ("settings", "handlers", "reason"),
    [
        ({"email": jobs.echo}, None, "it must be a Settings"),
        (Settings(), ["email"], "it must be a mapping of job types to functions"),
        (Settings(), "tests.jobs:handlers", "it must be a mapping"),
    ],
)
def test_what_is_no_settings_or_handlers_is_said_so(settings: Any, handlers: Any, reason: str) -> None:
    with pytest.raises(GoferError, match=reason):
        start(settings, handlers)


def test_a_file_is_simulated_on_only_on_request(tmp_path: Path) -> None:
    settings = Settings(database=str(tmp_path / "jobs.db"))
    with pytest.raises(SettingError, match=r"GOFER_HANDLERS, or GOFER_SIMULATED_SECONDS"):
        start(settings)
    assert list(tmp_path.iterdir()) == []
    start(Settings(database=settings.database, simulated_seconds=0)).stop()


# Under gunicorn.


def launched(
    *command: str | Path, folder: Path = TOP, **variables: Setting
) -> subprocess.CompletedProcess[str]:
    """Run a command that has to end by itself, soon; return it with what it wrote to stderr."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("GOFER_")}
    given = {"HOST": "127.0.0.1", "PORT": 0, **variables}
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=others | {name: str(value) for name, value in given.items()},
        stderr=subprocess.PIPE,
        text=True,
        timeout=PROMPT,
        check=False,
    )


def complaints(ended: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines that do more than inform."""
    return [line for line in ended.stderr.splitlines() if '"level": "info"' not in line]


#: Python imports it at its start; it lets the so-manyth thread of a name not start.
SITE = """
import os, threading
from tests import test_starts
class Patch:
    setattr = staticmethod(setattr)
name, number = os.environ["NO_THREAD"].split()
test_starts.no_thread(name, int(number))(Patch)
"""


@pytest.mark.parametrize("thread", ["JobStore 1", "Worker 1", "Worker 4"])
def test_a_service_without_threads_to_start_ends_with_one_line(
    thread: str, database: Path, tmp_path: Path
) -> None:
    site = tmp_path.parent / f"{tmp_path.name}-site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    with nothing_is_left(database):
        ended = launched(
            *COMMAND,
            PYTHONPATH=f"{site}{os.pathsep}{TOP}",
            NO_THREAD=thread,
            GOFER_DATABASE=database,
            GOFER_HANDLERS="tests.jobs:handlers",
            GOFER_WORKERS=4,
        )
    assert ended.returncode == 3
    (line,) = complaints(ended)
    assert f"gofer: cannot start a {thread[:-2]}: can't start new thread" in line


@pytest.mark.parametrize("setting", ["GOFER_HANDLERS", "GOFER_EXECUTOR"])
def test_a_module_that_breaks_off_and_leaves_a_thread_ends_the_service_with_one_line(
    setting: str, tmp_path: Path
) -> None:
    module = tmp_path / "leftover.py"
    module.write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n1 / 0\n"
    )
    path = f"{tmp_path}{os.pathsep}{TOP}"
    variables: dict[str, Setting] = {"PYTHONPATH": path, setting: "leftover:anything"}
    ended = launched(*COMMAND, folder=TOP, **variables)
    assert ended.returncode == 3
    (line,) = complaints(ended)
    assert f"gofer: {setting} is 'leftover:anything'; it cannot be imported: ZeroDivisionError" in line


def test_a_port_in_use_is_said_once_and_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        before = time.monotonic()
        ended = launched(*COMMAND, PORT=port)
        assert time.monotonic() - before < PROMPT / 2
    assert ended.returncode == 1
    (line,) = complaints(ended)
    assert line == (
        f"gofer: cannot listen on 127.0.0.1, port {port}: Address already in use; set HOST and PORT to others"
    )


@pytest.mark.parametrize(
    ("host", "reason"), [("192.0.2.1", "Cannot assign"), ("no.such.invalid", ""), ("2001:db8::1", "")]
)
def test_an_address_that_is_not_this_machines_is_refused(host: str, reason: str) -> None:
    ended = launched(*COMMAND, HOST=host, GOFER_OPEN=1)
    assert ended.returncode == 1
    (line,) = complaints(ended)
    assert line.startswith(f"gofer: cannot listen on {host}, port 0: {reason}")


def test_the_sockets_of_a_master_that_replaces_itself_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUNICORN_FD", "3")

    class Options:
        workers, worker_class_str, graceful_timeout, backlog = 1, "asgi", 30, 1
        preload_app = reuse_port = False
        max_requests = 0

        def __init__(self, taken: tuple[str, int]) -> None:
            self.address: list[tuple[str, int] | str | int] = [taken]

        def on_reload(self, master: object) -> None:
            pass

    with socket.create_server(("127.0.0.1", 0)) as taken:
        checks.check(Options(taken.getsockname()), Settings())


def test_a_file_without_handlers_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    ended = launched(*COMMAND, GOFER_DATABASE=tmp_path / "jobs.db")
    assert ended.returncode == 1
    (line,) = complaints(ended)
    assert "no handlers are set to run its jobs; set GOFER_HANDLERS, or GOFER_SIMULATED_SECONDS" in line
    assert list(tmp_path.iterdir()) == []


def test_the_graceful_timeout_is_set_by_the_grace_alone() -> None:
    ended = launched(*COMMAND, "--graceful-timeout", "60")
    assert ended.returncode == 1
    (line,) = complaints(ended)
    assert "graceful_timeout 60: it is always 5 more than GOFER_GRACE, so set that instead" in line


@pytest.mark.parametrize("app", ["api:create_app", "api:create_app()"])
def test_gunicorn_without_its_conf_is_told_how_to_start(app: str, tmp_path: Path) -> None:
    ended = launched(COMMAND[0], "--no-control-socket", app, folder=tmp_path, PYTHONPATH=TOP)
    assert ended.returncode == 4
    assert ended.stderr.count("with: gunicorn -c gunicorn.conf.py\n") == 1
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", ["app", "application", "create_app"])
def test_another_server_is_told_how_to_start(name: str) -> None:
    asks = f"import sys; sys.modules['uvicorn'] = sys; import api; api.{name}"
    ended = launched(sys.executable, "-c", asks)
    assert (ended.returncode, ended.stderr.count("\n")) == (4, 1)
    assert ended.stderr.endswith("with: gunicorn -c gunicorn.conf.py\n")


@pytest.mark.parametrize(
    ("name", "content"), [("api", ""), ("actors", ""), ("actors", "import nowhere"), ("api", "1 / 0")]
)
def test_a_folder_with_packages_of_these_names_is_named(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(content)
    ended = launched(COMMAND[0], "-c", TOP / "gunicorn.conf.py", folder=tmp_path)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("gofer: ")
    assert f"this folder, {tmp_path}, may have an `actors` or `api` of its own" in line


def test_a_kubernetes_service_of_the_same_name_does_not_stop_the_start() -> None:
    kubernetes = {
        "GOFER_PORT": "tcp://10.0.0.1:8080",
        "GOFER_PORT_8080_TCP_ADDR": "10.0.0.1",
        "GOFER_SERVICE_HOST": "10.0.0.1",
        "GOFER_SERVICE_PORT_HTTP": "8080",
    }
    with running(**kubernetes) as service:
        assert service.is_well()


def test_with_stderr_closed_no_file_of_ours_takes_its_place(tmp_path: Path) -> None:
    script = 'exec 2>&- "$@"'
    database = tmp_path / "jobs.db"
    look = tmp_path / "look.py"
    look.write_text(
        "import os\nfrom actors import Await, Settings, Submit, log, start\nlog.have_stderr()\n"
        f"settings = Settings(database={str(database)!r})\n"
        "with start(settings, {'where': lambda _: os.readlink('/proc/self/fd/2')}) as system:\n"
        "    job = system.store.ask(Submit('where'))\n"
        "    print(system.store.ask(Await(job.id)).result)\n"
    )
    ended = subprocess.run(
        ["bash", "-c", script, "bash", sys.executable, str(look)],
        env={**os.environ, "PYTHONPATH": str(TOP)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert ended.stdout == "/dev/null\n"
    refused = subprocess.run(
        ["bash", "-c", script, "bash", *COMMAND],
        cwd=TOP,
        env={**os.environ, "GOFER_WORKERS": "0"},
        stdout=subprocess.PIPE,
        timeout=PATIENCE,
        check=False,
    )
    assert (refused.returncode, refused.stdout) == (1, b"")
