"""How long an fsync takes: what every durable answer has to wait for. The other benchmarks print it, too.

Run it from the top of the checkout:

    .venv/bin/python benchmarks/disk.py
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

#: Bytes that a commit of one job appends to SQLite's WAL, about.
COMMIT = 4 * 4096


def fsync_seconds(folder: str, times: int = 300) -> float:
    """Append as much as a commit, and return what the fsync after it takes: the median."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        return statistics.median(_append(file.fileno()) for _ in range(times))


def _append(file: int) -> float:
    os.write(file, b"x" * COMMIT)
    started = time.perf_counter()
    os.fdatasync(file)
    return time.perf_counter() - started


if __name__ == "__main__":
    print(f"{fsync_seconds(str(Path.cwd())) * 1e3:.2f} ms")
