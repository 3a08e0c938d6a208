"""Processes that handlers start have nothing of the service: no signal handlers, no sockets, no database."""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pykka
import pytest

from actors import Settings, Submit, own, start
from tests.service import Service, eventually, running, starting

#: Seconds for which a child would live if it were not ended.
LONG = 60.0

Payload = dict[str, Any]


def looks(_payload: Payload) -> Any:
    """Return what a forked child has: descriptors, and how the signals are handled that are not as usual."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writing, json.dumps([_files(), _handled()]).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        return json.loads(pipe.read())


def _files() -> list[str]:
    found = []
    for file in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):  # That of the listing itself is gone.
            found.append(f"{file.readlink()} {_port(int(file.name))}")
    return found


def _port(descriptor: int) -> int:
    try:
        held = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return 0
    with held:
        return int(held.getsockname()[1]) if held.family == socket.AF_INET else 0


def _handled() -> dict[str, str]:
    usual = (signal.SIG_DFL, signal.default_int_handler)
    others = {signum for signum in signal.valid_signals() if signal.getsignal(signum) not in usual}
    return {
        str(signum): str(signal.getsignal(signum)) for signum in others - {signal.SIGPIPE, signal.SIGXFSZ}
    }


def terminates(_payload: Payload) -> list[int | None]:
    """Start a process and end it by each signal; return the exit codes."""
    codes = []
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(LONG,))
        process.start()
        assert process.pid is not None
        os.kill(process.pid, signum)
        process.join()
        codes.append(process.exitcode)
    return codes


def commands(_payload: Payload) -> list[int]:
    """Return what a command ignores and what it blocks, as bits."""
    script = "print(open('/proc/self/status').read())"
    status = subprocess.run(
        [sys.executable, "-Ic", script], capture_output=True, text=True, check=True
    ).stdout
    found = dict(line.split(":\t", 1) for line in status.splitlines() if line.startswith("Sig"))
    # Python itself ignores SIGPIPE and SIGXFSZ.
    own_ones = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    return [int(found["SigIgn"], 16) & ~own_ones, int(found["SigBlk"], 16)]


def exits(_payload: Payload) -> int:
    """Let a child end as a program does, with all that Python does at its end."""
    if (pid := os.fork()) == 0:
        sys.exit(7)
    return os.waitpid(pid, 0)[1]


def stays(_payload: Payload) -> int | None:
    """Leave a process behind; return its id."""
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(LONG,))
    process.start()
    return process.pid


handlers = {"looks": looks, "terminates": terminates, "commands": commands, "exits": exits, "stays": stays}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(
        GOFER_DATABASE=tmp_path / "jobs.db", GOFER_HANDLERS="tests.test_children:handlers"
    ) as service:
        yield service


def result(service: Service, job_type: str) -> Any:
    (job_id,) = service.submit(1, job_type)
    return service.wait_for(job_id, "completed")["result"]


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
def test_a_forked_child_has_no_descriptor_and_no_signal_handler_of_the_service(
    service: Service, tmp_path: Path
) -> None:
    with service.connect():
        files, handled = result(service, "looks")
    assert handled == {}
    assert [file for file in files if str(tmp_path) in file] == []
    assert [file for file in files if file.endswith(f" {service.port}")] == []


def test_a_child_can_be_ended_by_every_signal(service: Service) -> None:
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)
    assert result(service, "terminates") == [-number for number in numbers]


@linux
def test_a_command_ignores_and_blocks_no_signal(service: Service) -> None:
    assert result(service, "commands") == [0, 0]


def test_a_child_that_goes_on_where_the_handler_was_leaves_the_database_alone(
    service: Service, tmp_path: Path
) -> None:
    wal = tmp_path / "jobs.db-wal"
    before = wal.stat().st_ino
    assert result(service, "exits") == 0
    assert wal.stat().st_ino == before
    service.submit(5, "commands")
    assert service.is_well()


def test_what_a_handler_leaves_behind_keeps_neither_the_port_nor_the_lock(
    service: Service, tmp_path: Path
) -> None:
    child = int(result(service, "stays"))
    try:
        os.kill(service.worker, signal.SIGKILL)
        service.master.kill()
        service.master.wait()
        # Its owner may need a moment to end.
        ownership = own(str(tmp_path / "jobs.db"), wait=True)
        assert ownership is not None
        ownership.release()
        eventually(lambda: is_free(service.port))
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def is_free(port: int) -> bool:
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def test_a_fork_of_a_program_finds_its_actors_dead_and_ends_without_them(tmp_path: Path) -> None:
    wal = tmp_path / "jobs.db-wal"
    with start(Settings(database=str(tmp_path / "jobs.db")), {"looks": looks}) as system:
        before = wal.stat().st_ino
        if (pid := os.fork()) == 0:
            try:
                system.store.ask(Submit("looks"))
            except pykka.ActorDeadError:
                system.stop()
                os._exit(42)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
        assert wal.stat().st_ino == before
        assert system.store.ask(Submit("looks", delay=60)).status == "pending"


def test_a_service_that_waits_for_its_database_ends_with_its_master(tmp_path: Path) -> None:
    ownership = own(str(tmp_path / "jobs.db"), wait=False)
    assert ownership is not None
    try:
        with starting(GOFER_DATABASE=tmp_path / "jobs.db") as service:
            eventually(lambda: "waiting for the owner" in service.log)
            service.master.kill()
            service.master.wait()
            eventually(lambda: is_gone(service.worker))
    finally:
        ownership.release()


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "Z"  # Nobody may be there to reap it.
