"""How many jobs a second are run from a file, where each start and each end has to be durable.

The baseline is one job for each fsync, which is measured in the same round. One Worker cannot get there: the
end of a job shares the fsync of the next one's start, but the Worker waits for the disk, and the disk for the
Worker. Several Workers share an fsync, so together they can run more jobs than the disk has fsyncs.

Run it from the top of the checkout:

    .venv/bin/python benchmarks/durable.py
"""

import sys
from pathlib import Path

# As a script this file's own folder comes first on the path, where it would hide the package `actors`.
sys.path[0] = str(Path(__file__).parent.parent)

import argparse
import statistics
import tempfile
from functools import partial
from typing import Any

from actors import Settings
from benchmarks.disk import fsync_seconds
from benchmarks.workers import jobs_per_second


def nothing(_payload: dict[str, Any]) -> None:
    """Do nothing."""


def main() -> None:
    """Print the medians and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{options.jobs} jobs that do nothing, {options.rounds} rounds: medians, a second")
    print(f"{'Workers':>7}{'in memory':>12}{'in a file':>12}{'fsyncs':>10}{'in a file / fsyncs':>20}")
    for workers in (1, 2, 4, 8):
        settings = partial(Settings, workers=workers, capacity=options.jobs + workers)
        rounds = []
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory(dir=".") as folder:
                fsync = fsync_seconds(folder)
                in_file = jobs_per_second(settings(database=f"{folder}/jobs.db"), nothing, options.jobs)
            in_memory = jobs_per_second(settings(), nothing, options.jobs)
            rounds.append((in_memory, in_file, 1 / fsync, in_file * fsync))
        in_memory, in_file, fsyncs, ratio = (
            statistics.median(column) for column in zip(*rounds, strict=True)
        )
        print(f"{workers:7}{in_memory:12.0f}{in_file:12.0f}{fsyncs:10.0f}{ratio:20.2f}")


if __name__ == "__main__":
    main()
