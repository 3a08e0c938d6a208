"""How long an idle service takes from a POST to the first line of its handler, beside an empty responder.

Run it from the top of the checkout:

    .venv/bin/python benchmarks/latency.py
"""

import sys
from pathlib import Path

# As a script this file's own folder comes first on the path, where it would hide the standard `http`.
sys.path[0] = str(Path(__file__).parent.parent)

import argparse
import os
import socket
import statistics
import tempfile
import time

from benchmarks.disk import fsync_seconds
from benchmarks.http import CASES, service

#: Seconds between two POSTs, in which the service is idle.
PAUSE = 0.005


def send(connection: socket.socket, request: bytes) -> None:
    """Send a request, and receive its answer."""
    connection.sendall(request)
    if not connection.recv(65536).startswith(b"HTTP/1.1 201"):
        raise ValueError("the POST was refused")


def latencies(name: str, folder: str, number: int) -> tuple[list[float], list[float]]:
    """Return so many times from a POST to its answer, and to the handler's first line, in seconds."""
    answered, begun = [], []
    marks = f"{folder}/marks"
    os.environ["BENCHMARK_MARKS"] = marks
    with service(CASES[name], folder) as (url, _pid):
        port = int(url.split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            for _ in range(number):
                body = b'{"type":"mark","payload":%d}' % time.monotonic_ns()
                head = f"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
                started = time.monotonic()
                send(connection, f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
                answered.append(time.monotonic() - started)
                time.sleep(PAUSE)
    if Path(marks).exists():
        begun = [int(line) / 1e9 for line in Path(marks).read_text().split()]
        Path(marks).unlink()
    return answered, begun


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=1000)
    number = parser.parse_args().jobs
    os.chdir(Path(__file__).parent.parent)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        print(f"an fsync on this disk: {fsync_seconds(folder) * 1e3:.2f} ms")
        for name in ("floor", "memory, 1", "file, 1"):
            answered, begun = latencies(name, folder, number)
            first = f", to the first line {statistics.median(begun) * 1e3:.2f} ms" if begun else ""
            print(f"{name}: POST to its answer {statistics.median(answered) * 1e3:.2f} ms{first}")


if __name__ == "__main__":
    main()
