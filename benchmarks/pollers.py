"""Whether a submit stays quick while clients poll a job that has a large payload and a large result.

Twenty clients, in a process of their own, get one job again and again, each as soon as it has its last
answer; one more submits small jobs, one after the other. The baseline is an empty responder on the same
server and loop: it shows the same number of bytes to the same pollers, and answers each POST with 201.

In each round both services are up and take turns, so that a slow minute of the machine is one for both.

Run it from the top of the checkout:

    .venv/bin/python benchmarks/pollers.py
"""

import sys
from pathlib import Path

# As a script this file's own folder comes first on the path, where it would hide the standard `http`.
sys.path[0] = str(Path(__file__).parent.parent)

import argparse
import asyncio
import functools
import json
import multiprocessing
import os
import re
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from ctypes import c_ulong
from http.client import HTTPConnection
from typing import Any, NamedTuple

import httpx
import uvloop

GUNICORN = [sys.executable, "-m", "gunicorn", "--log-level", "warning", "--config"]
GOFER = [*GUNICORN, "gunicorn.conf.py"]
FLOOR = [
    *(*GUNICORN, "python:benchmarks.baselines", "--no-control-socket"),
    *("--worker-class=asgi", "--asgi-loop=uvloop"),
]
SETTINGS = {"GOFER_HANDLERS": "benchmarks.baselines:handlers", "GOFER_LOG": "WARNING"}
#: Bytes of the payload that is polled, and of its result.
LARGE = 900_000
#: The job that is submitted meanwhile.
SMALL = json.dumps({"type": "echo", "payload": {"to": "user@example.com"}})
JSON = {"Content-Type": "application/json"}
#: Seconds that anything may take.
PATIENCE = 60
#: What the mean of Gofer's POSTs may be, as a multiple of the baseline's.
BAR = 2.0


class Turn(NamedTuple):
    """The POSTs of one service while it is polled."""

    mean_ms: float
    p99_ms: float
    gets_per_second: float


class Poller(asyncio.BufferedProtocol):
    """A client that gets the job again and again, and only counts the bytes that come."""

    def __init__(self, path: str, answers: Any) -> None:
        self._request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        self._answers = answers
        self._buffer = bytearray(256 * 1024)
        #: Bytes of the answer that are still to come.
        self._left = 0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self._transport = transport
        self._transport.write(self._request)

    def get_buffer(self, _size: int) -> bytearray:
        """Give the same memory each time: nobody reads the body."""
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        """Count; ask again when the whole answer is there."""
        if not self._left:
            head, found, _ = bytes(self._buffer[: min(size, 4096)]).partition(b"\r\n\r\n")
            length = re.search(rb"\ncontent-length: *(\d+)", head, re.IGNORECASE)
            if not found or length is None or not head.startswith(b"HTTP/1.1 200"):
                raise ValueError(f"the answer was {head!r}")
            self._left = len(head) + 4 + int(length[1])
        self._left -= size
        if not self._left:
            self._answers.value += 1
            self._transport.write(self._request)


def poll(port: int, path: str, clients: int, answers: Any) -> None:
    """Poll until killed; count the answers."""

    async def connect() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(clients):
            await loop.create_connection(lambda: Poller(path, answers), "127.0.0.1", port)
        await asyncio.Event().wait()

    uvloop.run(connect())


@contextmanager
def service(command: list[str], database: str) -> Iterator[int]:
    """Start the service and give its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    environment = {**os.environ, **SETTINGS, "PORT": str(port), "GOFER_DATABASE": database}
    process = subprocess.Popen([*command, "--bind", f"127.0.0.1:{port}"], env=environment)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE)


def client(port: int) -> httpx.Client:
    """Return a client; it tries again after 0, 0.5, 1, 2 seconds and so on, until the service listens."""
    return httpx.Client(
        base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, transport=httpx.HTTPTransport(retries=6)
    )


def large_job(port: int) -> tuple[str, int]:
    """Run the large job; return its path, and how many bytes it is shown as."""
    with client(port) as http:
        posted = http.post("/jobs", json={"type": "echo", "payload": "x" * (LARGE - 2)})
        path: str = posted.raise_for_status().headers["Location"]
        end = time.monotonic() + PATIENCE
        while (shown := http.get(path)).json()["status"] != "completed":
            assert time.monotonic() < end
            time.sleep(0.05)
    assert len(shown.content) > 2 * LARGE
    return path, len(shown.content)


def post_seconds(port: int, number: int) -> list[float]:
    """Submit so many small jobs, one after the other on one connection; return how long each took."""
    taken = []
    with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        for _ in range(number):
            started = time.perf_counter()
            connection.request("POST", "/jobs", SMALL, JSON)
            answer = connection.getresponse()
            answer.read()
            taken.append(time.perf_counter() - started)
            assert answer.status == 201, answer.status
    return taken


def take_turn(port: int, path: str, clients: int, number: int) -> Turn:
    """Submit so many jobs while the clients poll."""
    answers: Any = multiprocessing.Value(c_ulong, lock=False)
    pollers = multiprocessing.Process(target=poll, args=(port, path, clients, answers), daemon=True)
    pollers.start()
    try:
        while answers.value < 2 * clients:
            assert pollers.is_alive()
            time.sleep(0.01)
        started, before = time.perf_counter(), answers.value
        taken = sorted(post_seconds(port, number))
        gets = (answers.value - before) / (time.perf_counter() - started)
        assert pollers.is_alive()
    finally:
        pollers.kill()
        pollers.join()
    return Turn(statistics.fmean(taken) * 1e3, taken[len(taken) * 99 // 100] * 1e3, gets)


def take_round(database: str, clients: int, number: int, *, is_floor_first: bool) -> tuple[Turn, Turn]:
    """Start both services; return the turn of Gofer and that of the baseline."""
    with service(GOFER, database) as gofer:
        path, size = large_job(gofer)
        with service([*FLOOR, f"benchmarks.baselines:floor({size})"], database) as floor:
            with client(floor) as http:
                assert len(http.get(path).content) == size
            turns = {}
            for port in (floor, gofer) if is_floor_first else (gofer, floor):
                turns[port] = take_turn(port, path, clients, number)
    return turns[gofer], turns[floor]


def main() -> None:
    """Take several rounds; print the medians, and the ratio of each round."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--posts", type=int, default=300, help="in a turn")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--database", action="store_true", help="Gofer in a file, not in memory")
    options = parser.parse_args()
    os.chdir(Path(__file__).parent.parent)
    rounds = []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for number in range(options.rounds):
            database = f"{folder}/{number}.db" if options.database else ":memory:"
            take = functools.partial(take_round, database, options.clients, options.posts)
            rounds.append(take(is_floor_first=number % 2 == 1))
    place = "a file" if options.database else "memory"
    print(f"{options.clients} pollers, {options.posts} POSTs, {options.rounds} rounds, {place}: medians")
    print(f"{'':8}{'POST ms':>10}{'p99 ms':>10}{'GETs/s':>10}")
    for name, turns in zip(("gofer", "floor"), zip(*rounds, strict=True), strict=True):
        figures = (statistics.median(column) for column in zip(*turns, strict=True))
        print(f"{name:8}" + "".join(f"{figure:10.1f}" for figure in figures))
    ratios = [gofer.mean_ms / floor.mean_ms for gofer, floor in rounds]
    ratio = statistics.median(ratios)
    print(f"gofer / floor: {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}); at most {BAR} is wanted")


if __name__ == "__main__":
    main()
