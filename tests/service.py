"""A real gunicorn, as a user starts it, for the tests."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import httpx

from tests import contract

T = TypeVar("T")
Setting = str | float | Path

TOP = Path(__file__).parent.parent
#: The script: with `-m gunicorn` a SIGUSR2 runs a file in gunicorn's folder, whose `http` hides Python's.
COMMAND = [str(Path(sys.executable).with_name("gunicorn")), "-c", "gunicorn.conf.py"]
#: Seconds that what must happen may take on a busy machine.
PATIENCE = 20.0
#: Each answer that a client gets is held against the document of the API.
CHECKED: Final = {"response": [contract.check_answer]}


def eventually(condition: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """Return the first thing that the condition gives and that is true."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"this did not come true in {seconds:g} seconds"
        time.sleep(0.01)
    return result


class Exit(NamedTuple):
    """How a service ended."""

    code: int
    #: Since the signal.
    seconds: float


class Service:
    """A gunicorn that runs. What it logs it has to log in JSON, a line each."""

    def __init__(self, master: subprocess.Popen[bytes], log: Path, client: httpx.Client) -> None:
        self.master = master
        self._log = log
        self.port = int(self._logged(r"Listening at: http://[\d.]+:(\d+)"))
        self.worker = int(self._logged(r"Booting worker with pid: (\d+)"))
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = client
        self.client.base_url = httpx.URL(self.url)

    @property
    def log(self) -> str:
        """All that was written to stderr so far."""
        return self._log.read_text()

    @property
    def events(self) -> list[str]:
        """What happened so far, as the log tells it."""
        lines = self.log.splitlines(keepends=True)
        return [str(json.loads(line)["event"]) for line in lines if line.endswith("\n")]

    def job(self, job_id: str) -> dict[str, Any]:
        """Return the job as it is now."""
        found: dict[str, Any] = self.client.get(f"/jobs/{job_id}").raise_for_status().json()
        return found

    def jobs(self, **query: str | int) -> list[dict[str, Any]]:
        """Return one page of jobs."""
        page: list[dict[str, Any]] = self.client.get("/jobs", params=query).raise_for_status().json()
        return page

    def walk(self, **query: str | int) -> Iterator[list[dict[str, Any]]]:
        """Yield one page of jobs after the other, as their links lead."""
        response = self.client.get("/jobs", params=query).raise_for_status()
        yield response.json()
        while following := response.links.get("next"):
            response = self.client.get(following["url"]).raise_for_status()
            yield response.json()

    def submit(self, count: int = 1, job_type: str = "email") -> list[str]:
        """Submit jobs, one after the other on one connection, and return their ids."""
        body = json.dumps({"type": job_type, "payload": {"to": "user@example.com"}})
        with contextlib.closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            return [_post(connection, body) for _ in range(count)]

    def wait_for(self, job_id: str, status: str) -> dict[str, Any]:
        """Return the job as it is when first seen with this status."""
        return eventually(lambda: job if (job := self.job(job_id))["status"] == status else None)

    def is_well(self) -> bool:
        """Tell whether the service is there and says that it is well."""
        assert self.master.poll() is None, self.log
        with contextlib.suppress(httpx.TransportError):
            return self.client.get("/health").is_success
        return False

    def connect(self) -> socket.socket:
        """Open a connection and say nothing."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def stop(self, signum: signal.Signals) -> Exit:
        """Signal the master and wait until it has ended."""
        start = time.monotonic()
        self.master.send_signal(signum)
        return Exit(self.master.wait(PATIENCE), time.monotonic() - start)

    def drain(self, signum: signal.Signals) -> None:
        """Signal the master and wait until the worker knows of it."""
        with contextlib.closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.connect()
            connection.auto_open = 0
            self.master.send_signal(signum)
            eventually(lambda: _is_stopping(connection))

    def _logged(self, pattern: str) -> str:
        return eventually(lambda: self._find(pattern))[1]

    def _find(self, pattern: str) -> re.Match[str] | None:
        found = re.search(pattern, self.log)
        assert found or self.master.poll() is None, self.log
        return found


def _post(connection: HTTPConnection, body: str) -> str:
    connection.request("POST", "/jobs", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    assert response.status == 201, answer
    contract.check("POST", "/jobs", httpx.Response(201, headers=response.getheaders(), content=answer))
    return str(json.loads(answer)["id"])


def _is_stopping(connection: HTTPConnection) -> bool:
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        response.read()
    except (ConnectionError, HTTPException):
        return True  # A stopping worker keeps no connection alive.
    return response.status == 503


def answer(connection: socket.socket) -> httpx.Response:
    """Read one response, with a body that the connection's end may not cut off."""
    with contextlib.closing(HTTPResponse(connection)) as response:
        response.begin()
        read = httpx.Response(response.status, headers=response.getheaders(), content=response.read())
    contract.check_form(read)
    return read


@contextlib.contextmanager
def starting(*options: str, **settings: Setting) -> Iterator[Service]:
    """Start gunicorn on a free port, with options of its command line; nothing is left of it afterwards."""
    # Without keep-alive no test meets a connection that gunicorn is just closing.
    limits = httpx.Limits(max_keepalive_connections=0)
    with (
        tempfile.TemporaryDirectory() as folder,
        httpx.Client(timeout=PATIENCE, limits=limits, trust_env=False, event_hooks=CHECKED) as client,
        Path(folder, "log").open("wb") as log,
    ):
        variables = _environment(settings)
        command = [*COMMAND, *options]
        master = subprocess.Popen(command, cwd=TOP, env=variables, stderr=log, start_new_session=True)
        try:
            yield Service(master, Path(log.name), client)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(master.pid, signal.SIGKILL)
            master.wait()


@contextlib.contextmanager
def running(*options: str, **settings: Setting) -> Iterator[Service]:
    """Start gunicorn and wait until it is well."""
    with starting(*options, **settings) as service:
        eventually(service.is_well)
        yield service


def refused(*options: str, **settings: Setting) -> subprocess.CompletedProcess[str]:
    """Start gunicorn where it has to give up by itself."""
    return subprocess.run(
        [*COMMAND, *options],
        cwd=TOP,
        env=_environment(settings),
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def _environment(settings: dict[str, Setting]) -> dict[str, str]:
    """Return this process's environment with these settings and none of its own."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("GOFER_")}
    ours = {"HOST": "127.0.0.1", "PORT": 0, "GOFER_SIMULATED_SECONDS": 1, **settings}
    return others | {name: str(value) for name, value in ours.items()}
