"""How much throughput N Workers add where handlers wait.

Each job sleeps for 10 ms. The baseline is N divided by how long such a sleep really takes, measured just
before: what N Workers would do if Gofer cost nothing. The time is that of the jobs themselves, from the first
one's started_at to the last one's finished_at; all are submitted before.

Run it from the top of the checkout:

    .venv/bin/python benchmarks/workers.py
"""

import sys
from pathlib import Path

# As a script this file's own folder comes first on the path, where it would hide the package `actors`.
sys.path[0] = str(Path(__file__).parent.parent)

import argparse
import threading
import time
from typing import Any

from actors import Await, Settings, Submit, start
from actors.handlers import Function

#: Seconds that a job waits.
WAIT = 0.010


def wait(_payload: dict[str, Any]) -> None:
    """Do what a handler does that asks another service: nothing, for a while."""
    time.sleep(WAIT)


def seconds_asleep(number: int) -> float:
    """Return how long a sleep takes in the mean; always longer than it was asked to."""
    started = time.perf_counter()
    for _ in range(number):
        time.sleep(WAIT)
    return (time.perf_counter() - started) / number


def jobs_per_second(settings: Settings, function: Function, number: int) -> float:
    """Submit so many jobs while others hold all Workers; return how many are then run in a second."""
    gate = threading.Event()
    with start(settings, {"hold": lambda _: gate.wait() and None, "run": function}) as system:
        for _ in range(settings.workers):
            system.store.ask(Submit("hold"))
        replies = [system.store.ask(Submit("run"), block=False) for _ in range(number)]
        ids = [reply.get().id for reply in replies]
        gate.set()
        # The last job first: the others are asked for when the work is done, and so do not disturb it.
        last = [system.store.ask(Await(job_id), block=True) for job_id in reversed(ids[-settings.workers :])]
        first = [system.store.ask(Await(job_id), block=True) for job_id in ids[: settings.workers]]
    started = min(job.started_at for job in first)
    finished = max(job.finished_at for job in last)
    seconds: float = (finished - started).total_seconds()
    return number / seconds


def main() -> None:
    """Print every figure beside its baseline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100, help="for each Worker")
    number = parser.parse_args().jobs

    for workers in (1, 2, 4, 8, 32):
        ideal = workers / seconds_asleep(number)
        settings = Settings(workers=workers, capacity=workers * (number + 1))
        real = jobs_per_second(settings, wait, workers * number)
        print(f"Workers: {workers}, jobs per second: {real:.0f}, ideal {ideal:.0f}: {real / ideal:.2f}")


if __name__ == "__main__":
    main()
