"""What a request and a job cost in CPU time, in this checkout against another one.

The CPU time is that of all processes of the service, by the kernel's accounts: Linux only. What the client
takes is not in it. Both run in the interpreter of this checkout, with the packages that are installed there.

In each round both are started and take turns, so that a slow minute of the machine is one for both; the round
counts with the median of the turns. A job does nothing, and costs all that is done from its POST to its end.

Run it from the top of the checkout:

    .venv/bin/python benchmarks/compare.py OTHER_CHECKOUT
"""

import sys
from pathlib import Path

# As a script this file's own folder comes first on the path, where it would hide the standard `http`.
sys.path[0] = str(Path(__file__).parent.parent)

import argparse
import asyncio
import os
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import httpx
import uvloop

from benchmarks.disk import fsync_seconds

GUNICORN = [sys.executable, "-m", "gunicorn", "--log-level", "warning", "--config", "gunicorn.conf.py"]
SETTINGS = {"GOFER_SIMULATED_SECONDS": "0", "GOFER_CAPACITY": "100000000", "GOFER_LOG": "WARNING"}
CONNECTIONS = 32
#: Turns that each service has in a round.
TURNS = 8
#: Jobs before the first turn.
WARM_UP = 1000
#: Seconds between two looks whether all jobs have run. A look costs the service as much as a few requests.
LOOK = 0.05
#: Seconds that a service may take to answer, and to stop.
PATIENCE = 60
FIGURES = ("request, CPU µs", "job, CPU µs", "jobs a second")
Figures = tuple[float, ...]


class Service(NamedTuple):
    """A service that is up."""

    pid: int
    port: int
    client: httpx.Client

    def jobs(self, **query: str) -> Any:
        """Return the first job that the query finds, in a list."""
        return self.client.get("/jobs", params={"limit": "1", **query}).raise_for_status().json()


@contextmanager
def service(checkout: Path, database: str) -> Iterator[Service]:
    """Start the service of a checkout, and stop it whatever happens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The checkout's code has to come before that of the one that is installed.
    own = {"PYTHONPATH": str(checkout), "PORT": str(port), "GOFER_DATABASE": database}
    environment = {**os.environ, **SETTINGS, **own}
    process = subprocess.Popen(GUNICORN, cwd=checkout, env=environment, start_new_session=True)
    try:
        retries = httpx.HTTPTransport(retries=6)  # after 0, 0.5, 1, 2 seconds and so on, until it listens
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, transport=retries) as client:
            served = Service(process.pid, port, client)
            served.jobs()
            yield served
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the service; kill what is left of it then."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def cpu_us(pid: int) -> float:
    """Return the CPU time of the process and its descendants, with the threads that have ended, in µs."""
    children = " ".join(file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children"))
    # What clock_getcpuclockid(3) makes of a pid. It counts nanoseconds, where /proc/<pid>/stat has ticks.
    own = time.clock_gettime_ns(~pid << 3 | 2) / 1e3
    return own + sum(cpu_us(int(child)) for child in children.split())


async def send(port: int, request: bytes, number: int) -> None:
    """Send the request so many times, over all connections."""
    left = iter(range(number))

    async def share() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in left:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"\ncontent-length: *(\d+)", head, re.IGNORECASE)
            if length is None or not head.startswith(b"HTTP/1.1 2"):
                raise ValueError(f"the answer was {head!r}")
            await reader.readexactly(int(length[1]))
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(share())


def run_jobs(served: Service, payload: int, number: int) -> float:
    """Submit so many jobs and wait until all have run; return the seconds until the last was completed."""
    body = b'{"type":"email","payload":{"text":"%b"}}' % (b"x" * payload)
    head = "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    started = datetime.now(UTC)
    uvloop.run(send(served.port, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, number))
    while served.jobs(status="pending") or served.jobs(status="processing"):
        time.sleep(LOOK)
    if served.jobs(status="failed"):
        raise ValueError("a job has failed")
    last = served.jobs(order="newest")[0]
    return (datetime.fromisoformat(last["finished_at"]) - started).total_seconds()


def take_turn(served: Service, payload: int, number: int) -> Figures:
    """Get a finished job so many times, then run so many jobs."""
    get = f"GET /jobs/{served.jobs(status='completed')[0]['id']} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    before = cpu_us(served.pid)
    uvloop.run(send(served.port, get, number))
    between = cpu_us(served.pid)
    seconds = run_jobs(served, payload, number)
    return (between - before) / number, (cpu_us(served.pid) - between) / number, number / seconds


def take_round(old: Path, new: Path, folder: str | None, payload: int, number: int) -> list[Figures]:
    """Have both services take turns; return what each has shown."""
    turns: list[list[Figures]] = [[], []]
    databases = [f"{folder}/{time.monotonic_ns()}.db" if folder else ":memory:" for _ in turns]
    with service(old, databases[0]) as first, service(new, databases[1]) as second:
        for served in (first, second):
            run_jobs(served, payload, WARM_UP)
        for turn in range(TURNS):
            for side in (0, 1) if turn % 2 else (1, 0):
                turns[side].append(take_turn((first, second)[side], payload, number))
    return [tuple(map(statistics.median, zip(*shown, strict=True))) for shown in turns]


def report(place: str, rounds: list[list[Figures]]) -> None:
    """Print the medians of the rounds, and their ratios."""
    for number, figure in enumerate(FIGURES):
        old, new = ([shown[side][number] for shown in rounds] for side in (0, 1))
        ratios = [b / a for a, b in zip(old, new, strict=True)]
        print(
            f"{place:8}{figure:16}{statistics.median(old):8.0f}{statistics.median(new):8.0f}"
            f"{statistics.median(ratios):12.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        )


def main() -> None:
    """Measure both checkouts several times, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("other", type=Path, metavar="OTHER_CHECKOUT")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=8000, help="in a round")
    parser.add_argument("--payload", type=int, default=20, metavar="BYTES")
    parser.add_argument("--database", action="store_true", help="only in a file, not in memory too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or it would leave the services behind
    old, new = options.other.resolve(), Path(__file__).resolve().parent.parent
    rounds: dict[str, list[list[Figures]]] = {"file": []} if options.database else {"memory": [], "file": []}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        print(f"an fsync on this disk: {fsync_seconds(folder) * 1e3:.2f} ms")
        for _ in range(options.rounds):
            for place, shown in rounds.items():
                files = folder if place == "file" else None
                shown.append(take_round(old, new, files, options.payload, options.requests // TURNS))
    title = f"{options.rounds} x {options.requests}: medians"
    print(f"{title:24}{'old':>8}{'new':>8}{'new / old (least to most)':>27}")
    for place, shown in rounds.items():
        report(place, shown)


if __name__ == "__main__":
    main()
