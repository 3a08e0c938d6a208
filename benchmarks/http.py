"""How many jobs a second Gofer takes over HTTP and finishes, and how that compares.

Needs `wrk` (Debian: apt-get install wrk). How to read the table is in the README of this folder. Run it from
the top of the checkout:

    .venv/bin/python benchmarks/http.py
"""

import sys
from pathlib import Path

# As a script this file's own folder comes first on the path, where it would hide the standard `http`.
sys.path[0] = str(Path(__file__).parent.parent)

import argparse
import os
import re
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, NamedTuple

import httpx

from benchmarks.compare import cpu_us, stop
from benchmarks.disk import fsync_seconds

GUNICORN: Final = [sys.executable, "-m", "gunicorn", "--log-level", "warning"]
GOFER: Final = [*GUNICORN, "--config", "gunicorn.conf.py"]
BASELINE: Final = [*GUNICORN, "--config", "python:benchmarks.baselines", "--no-control-socket"]
#: It does not say when a job was finished.
NAIVE: Final = [*BASELINE, "--worker-class=gthread", "--threads=32", "benchmarks.baselines:naive()"]
LUA: Final = """
wrk.method = "POST"
wrk.body = '{"type":"echo","payload":{"to":"user@example.com"}}'
wrk.headers["Content-Type"] = "application/json"
"""
#: One that holds its Worker for longer than any round.
LONG: Final = {"type": "long", "payload": 3600}
#: Seconds of load before those that count.
WARM_UP: Final = 1
UNFINISHED: Final = ("pending", "processing")


class Case(NamedTuple):
    """A service and its settings."""

    command: list[str]
    workers: int = 1
    is_durable: bool = False
    #: Whether a long job holds the Worker, so that none of the others runs.
    is_held: bool = False
    keeps_jobs: bool = True


CASES: Final = {
    "floor": Case(
        [*BASELINE, "--worker-class=asgi", "--asgi-loop=uvloop", "benchmarks.baselines:floor()"],
        keeps_jobs=False,
    ),
    "memory, 1": Case(GOFER),
    "memory, 8": Case(GOFER, workers=8),
    "memory, held": Case(GOFER, is_held=True),
    "file, 1": Case(GOFER, is_durable=True),
    "file, 8": Case(GOFER, workers=8, is_durable=True),
    "file, held": Case(GOFER, is_durable=True, is_held=True),
    "asyncio, 1": Case([*GOFER, "--asgi-loop=asyncio"]),
    "naive": Case(NAIVE),
}


class Run(NamedTuple):
    """One service under load for a while."""

    posts: float
    p50_ms: float
    p99_ms: float
    #: Jobs finished per second, from the first POST to the last end.
    done: float
    #: The part of them that was finished when the last POST was answered.
    share: float
    #: CPU time of all processes of the service.
    cpu_us: float
    not_created: int


@contextmanager
def service(case: Case, folder: str) -> Iterator[tuple[str, int]]:
    """Start the service; give its address and its process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "PORT": str(port),
        "GOFER_HANDLERS": "benchmarks.baselines:handlers",
        "GOFER_CAPACITY": "100000000",
        "GOFER_CAPACITY_BYTES": "100GiB",
        "GOFER_GRACE": "0",
        "GOFER_LOG": "ERROR",
        "GOFER_WORKERS": str(case.workers),
        "GOFER_DATABASE": f"{folder}/{time.monotonic_ns()}.db" if case.is_durable else ":memory:",
    }
    bind = [] if "gunicorn.conf.py" in case.command else ["--bind", f"127.0.0.1:{port}"]
    process = subprocess.Popen([*case.command, *bind], env={**os.environ, **settings}, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}/jobs"
        while not answers(url):
            time.sleep(0.05)
        yield url, process.pid
    finally:
        stop(process)


def answers(url: str) -> bool:
    """Tell whether the service is up."""
    try:
        httpx.get(url)
    except httpx.TransportError:
        return False
    return True


def wait_until_done(url: str) -> None:
    """Wait until every job has been run; a look costs the service as much as a few requests."""
    while any(httpx.get(url, params={"status": status, "limit": 1}).json() for status in UNFINISHED):
        time.sleep(0.02)


def finished_after(url: str, then: datetime) -> int:
    """Return how many jobs were finished after that, looking at the newest first."""
    number = 0
    after: dict[str, str] = {}
    while page := httpx.get(url, params={"order": "newest", "limit": 1000, **after}).json():
        late = sum(datetime.fromisoformat(job["finished_at"]) > then for job in page)
        if not late:
            break
        number, after = number + late, {"after": page[-1]["id"]}
    return number


def load(case: Case, folder: str, seconds: int, connections: int) -> Run:
    """Put the service under load, then wait until its backlog is gone."""
    with service(case, folder) as (url, pid), tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(LUA)
        script.flush()
        wrk = ["wrk", "--latency", "-t1", f"-c{connections}", "-s", script.name, url]
        subprocess.run([*wrk, f"-d{WARM_UP}s"], capture_output=True, check=True)
        if case.is_held:
            httpx.post(url, json=LONG)
        elif case.keeps_jobs:
            wait_until_done(url)
        before, started = cpu_us(pid), time.perf_counter()
        output = subprocess.run([*wrk, f"-d{seconds}s"], capture_output=True, text=True, check=True).stdout
        ended, posted = datetime.now(UTC), int(found(r"(\d+) requests in", output))
        runs_jobs = case.keeps_jobs and not case.is_held
        if runs_jobs:
            wait_until_done(url)
        took, cpu = time.perf_counter() - started, cpu_us(pid) - before
        return Run(
            posts=float(found(r"Requests/sec:\s+([\d.]+)", output)),
            p50_ms=milliseconds(found(r"\n\s+50%\s+(\S+)", output)),
            p99_ms=milliseconds(found(r"\n\s+99%\s+(\S+)", output)),
            done=posted / took if runs_jobs else 0,
            share=1 - finished_after(url, ended) / posted if runs_jobs and case.command is not NAIVE else 0,
            cpu_us=cpu / posted,
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


def measured(cases: list[str], rounds: int, seconds: int, connections: int) -> dict[str, list[Run]]:
    """Measure every case in turn, several times."""
    runs: dict[str, list[Run]] = {name: [] for name in cases}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        print(f"an fsync on this disk: {fsync_seconds(folder) * 1e3:.2f} ms")
        for _ in range(rounds):
            for name in cases:
                runs[name].append(load(CASES[name], folder, seconds, connections))
    return runs


def ratio(runs: list[float], floor: list[float]) -> float:
    """Return the median ratio, round by round: machines have slow minutes."""
    return statistics.median(one / other for one, other in zip(runs, floor, strict=True))


def main() -> None:
    """Measure every case in turn, several times, and print the medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    os.chdir(Path(__file__).parent.parent)
    names = list(dict.fromkeys(["floor", *options.cases]))
    runs = measured(names, options.rounds, options.seconds, options.connections)
    print(f"{options.connections} connections, {options.seconds} s, {options.rounds} rounds: medians")
    titles = ("POST/s", "/ floor", "done/s", "/ floor", "share", "CPU µs", "p50 ms", "p99 ms", "not 201")
    print(" " * 14 + "".join(f"{title:>9}" for title in titles))
    floor = [run.posts for run in runs["floor"]]
    for name, rows in runs.items():
        run = Run(*(statistics.median(figures) for figures in zip(*rows, strict=True)))
        posts, done = ratio([row.posts for row in rows], floor), ratio([row.done for row in rows], floor)
        print(
            f"{name:14}{run.posts:9.0f}{posts:9.2f}{run.done:9.0f}{done:9.2f}{run.share:9.2f}"
            f"{run.cpu_us:9.0f}{run.p50_ms:9.2f}{run.p99_ms:9.2f}{run.not_created:9.0f}"
        )


if __name__ == "__main__":
    main()
