"""How much throughput N Workers add where handlers wait.

Each job sleeps for 10 ms. The baseline is N divided by how long such a sleep really takes, measured just
before: what N Workers would do if Gofer cost nothing. The time is that of the jobs themselves, from the first
one's started_at to the last one's finished_at; whatever is still submitted after the first start is in it.

Run it from the top of the checkout:

    .venv/bin/python benchmarks/workers.py
"""

import sys
from pathlib import Path

# As a script this file's own folder comes first on the path, where it would hide the package `actors`.
sys.path[0] = str(Path(__file__).parent.parent)

import argparse
import time
from typing import Any

from actors import Await, Settings, Submit, start

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


def jobs_per_second(workers: int, number: int) -> float:
    """Submit so many jobs at once, wait for all of them, and return how many were run in a second."""
    with start(Settings(workers=workers, capacity=number), {"wait": wait}) as system:
        replies = [system.store.ask(Submit("wait"), block=False) for _ in range(number)]
        ids = [reply.get().id for reply in replies]
        # The last job first: the others are asked for when the work is done, and so do not disturb it.
        jobs = [system.store.ask(Await(job_id), block=True) for job_id in reversed(ids)]
    started = min(job.started_at for job in jobs)
    finished = max(job.finished_at for job in jobs)
    seconds: float = (finished - started).total_seconds()
    return number / seconds


def main() -> None:
    """Print every figure beside its baseline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100, help="for each Worker")
    number = parser.parse_args().jobs

    for workers in (1, 2, 4, 8, 32):
        ideal = workers / seconds_asleep(number)
        real = jobs_per_second(workers, workers * number)
        print(f"Workers: {workers}, jobs per second: {real:.0f}, ideal {ideal:.0f}: {real / ideal:.2f}")


if __name__ == "__main__":
    main()
