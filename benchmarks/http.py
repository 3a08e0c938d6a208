"""How many jobs a second Gofer takes over HTTP, and how that compares.

Needs `wrk` (Debian: apt-get install wrk). Run it from the top of the checkout:

    .venv/bin/python benchmarks/http.py
"""

import sys
from pathlib import Path

# As a script this file's own folder comes first on the path, where it would hide the standard `http`.
sys.path[0] = str(Path(__file__).parent.parent)

import argparse
import os
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import httpx

from benchmarks.disk import fsync_seconds

GUNICORN = [sys.executable, "-m", "gunicorn", "--log-level", "warning"]
BASELINE = [*GUNICORN, "--config", "python:benchmarks.baselines", "--no-control-socket"]
LUA = """
wrk.method = "POST"
wrk.body = '{"type":"email","payload":{"to":"user@example.com"}}'
wrk.headers["Content-Type"] = "application/json"
"""
SERVICES = {
    "floor": [*BASELINE, "--worker-class=asgi", "--asgi-loop=uvloop", "benchmarks.baselines:floor()"],
    "gofer": [*GUNICORN, "--config", "gunicorn.conf.py"],
    "durable": [*GUNICORN, "--config", "gunicorn.conf.py"],
    "asyncio": [*GUNICORN, "--config", "gunicorn.conf.py", "--asgi-loop=asyncio"],
    "naive": [*BASELINE, "--worker-class=gthread", "--threads=32", "benchmarks.baselines:naive()"],
}

UNFINISHED = ("pending", "processing")


class Run(NamedTuple):
    """One service under load for a while."""

    per_second: float
    p50_ms: float
    p99_ms: float
    drain_seconds: float
    not_created: int


@contextmanager
def service(name: str, folder: str) -> Iterator[str]:
    """Start the service and give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "PORT": str(port),
        "GOFER_SIMULATED_SECONDS": "0",
        "GOFER_CAPACITY": "100000000",
        "GOFER_LOG": "WARNING",
        "GOFER_DATABASE": f"{folder}/{time.monotonic_ns()}.db" if name == "durable" else ":memory:",
    }
    bind = [] if "gunicorn.conf.py" in SERVICES[name] else ["--bind", f"127.0.0.1:{port}"]
    process = subprocess.Popen([*SERVICES[name], *bind], env={**os.environ, **settings})
    try:
        url = f"http://127.0.0.1:{port}/jobs"
        while not answers(url):
            time.sleep(0.05)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def answers(url: str) -> bool:
    """Tell whether the service is up."""
    try:
        httpx.get(url)
    except httpx.TransportError:
        return False
    return True


def drained(url: str) -> bool:
    """Tell whether every job has been processed."""
    if httpx.get(url).status_code == httpx.codes.METHOD_NOT_ALLOWED:
        return True  # the floor keeps no jobs
    return all(not httpx.get(url, params={"status": s, "limit": 1}).json() for s in UNFINISHED)


def load(name: str, folder: str, seconds: int, connections: int) -> Run:
    """Put the service under load, then wait until its backlog is gone."""
    with service(name, folder) as url, tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(LUA)
        script.flush()
        wrk = ["wrk", "--latency", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script.name]
        output = subprocess.run([*wrk, url], capture_output=True, text=True, check=True).stdout
        ended = time.perf_counter()
        while not drained(url):
            time.sleep(0.02)
        return Run(
            per_second=float(found(r"Requests/sec:\s+([\d.]+)", output)),
            p50_ms=milliseconds(found(r"\n\s+50%\s+(\S+)", output)),
            p99_ms=milliseconds(found(r"\n\s+99%\s+(\S+)", output)),
            drain_seconds=time.perf_counter() - ended,
            not_created=int(found(r"Non-2xx or 3xx responses: (\d+)", output, "0")),
        )


def found(pattern: str, text: str, default: str | None = None) -> str:
    """Return the first group of the pattern in wrk's output."""
    match = re.search(pattern, text)
    if match is None:
        if default is None:
            raise ValueError(f"no {pattern} in:\n{text}")
        return default
    return match[1]


def milliseconds(text: str) -> float:
    """Read wrk's notation: 850.00us, 4.20ms, 1.02s."""
    number, unit = float(found(r"([\d.]+)", text)), found(r"([a-z]+)$", text)
    return number * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def main() -> None:
    """Measure every service in turn, several times, and print the medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    os.chdir(Path(__file__).parent.parent)
    runs: dict[str, list[Run]] = {name: [] for name in SERVICES}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        fsync = fsync_seconds(folder)
        for _ in range(options.rounds):
            for name in SERVICES:
                runs[name].append(load(name, folder, options.seconds, options.connections))
    medians = {
        name: Run(*(statistics.median(figures) for figures in zip(*rows, strict=True)))
        for name, rows in runs.items()
    }
    print(f"{options.connections} connections, {options.seconds} s, {options.rounds} rounds: medians")
    print(f"{'':8}{'req/s':>10}{'p50 ms':>10}{'p99 ms':>10}{'drain s':>10}{'not 201':>10}")
    for name, run in medians.items():
        print(
            f"{name:8}{run.per_second:10.0f}{run.p50_ms:10.2f}{run.p99_ms:10.2f}"
            f"{run.drain_seconds:10.2f}{run.not_created:10.0f}"
        )
    for one, other in (("gofer", "floor"), ("gofer", "naive"), ("gofer", "asyncio"), ("durable", "gofer")):
        # Round by round, as the two were measured one soon after the other: machines have slow minutes.
        ratios = [a.per_second / b.per_second for a, b in zip(runs[one], runs[other], strict=True)]
        print(f"{one} / {other}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"an fsync on this disk: {fsync * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
