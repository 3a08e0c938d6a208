"""How many jobs a second one Worker runs, in memory and in a file, where each has to wait for an fsync.

The baseline is one job for each fsync, which is measured in the same round: as fast as it could be if all
else cost nothing. A job starts when its claim is durable, and its end shares the fsync of the next claim.

Run it from the top of the checkout:

    .venv/bin/python benchmarks/one_worker.py
"""

import sys
from pathlib import Path

# As a script this file's own folder comes first on the path, where it would hide the package `actors`.
sys.path[0] = str(Path(__file__).parent.parent)

import argparse
import statistics
import tempfile
import threading

from actors import Await, Settings, Submit, start
from benchmarks.disk import fsync_seconds


def jobs_per_second(database: str, number: int) -> float:
    """Submit so many jobs while the first holds the Worker; return how many are then run in a second."""
    gate = threading.Event()
    settings = Settings(capacity=number + 1, database=database)
    with start(settings, {"wait": lambda _: gate.wait() and None, "nothing": lambda _: None}) as system:
        system.store.ask(Submit("wait"))
        replies = [system.store.ask(Submit("nothing"), block=False) for _ in range(number)]
        ids = [reply.get().id for reply in replies]
        gate.set()
        last = system.store.ask(Await(ids[-1]), block=True)
        first = system.store.ask(Await(ids[0]), block=True)
    seconds: float = (last.finished_at - first.started_at).total_seconds()
    return number / seconds


def main() -> None:
    """Print the medians and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    rounds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=".") as folder:
            fsync = fsync_seconds(folder)
            in_file = jobs_per_second(f"{folder}/jobs.db", options.jobs)
        rounds.append((jobs_per_second(":memory:", options.jobs), in_file, 1 / fsync, in_file * fsync))
    in_memory, in_file, fsyncs, ratio = (statistics.median(figures) for figures in zip(*rounds, strict=True))
    print(f"one Worker, {options.jobs} jobs that do nothing, {options.rounds} rounds: medians")
    print(f"in memory: {in_memory:.0f} jobs/s; in a file: {in_file:.0f} jobs/s")
    print(f"fsyncs: {fsyncs:.0f}/s; in a file, of one job for each: {ratio:.2f}")


if __name__ == "__main__":
    main()
