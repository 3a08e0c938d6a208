"""How fast the actors are without HTTP, and how soon an idle Worker starts a job.

Run it from the top of the checkout:

    .venv/bin/python benchmarks/actors.py
"""

import sys
from pathlib import Path

# As a script this file's own folder comes first on the path, where it would hide the package `actors`.
sys.path[0] = str(Path(__file__).parent.parent)

import argparse
import statistics
import time
from typing import Any

import pykka

from actors import Await, Settings, Submit, System, start
from actors.messages import Ping


class Echo(pykka.ThreadingActor):
    """The baseline: an actor as pykka has it, which does nothing."""

    def on_receive(self, message: object) -> object:
        """Return the message."""
        return message


def messages_per_second(actor: pykka.ActorRef[Any], number: int) -> float:
    """Ask one after the other, each time waiting for the answer."""
    started = time.perf_counter()
    for _ in range(number):
        actor.ask(Ping())
    return number / (time.perf_counter() - started)


def seconds_to_start(system: System, number: int) -> list[float]:
    """Submit jobs one at a time to an idle Worker; return how long each waited until it was claimed."""
    waits = []
    for _ in range(number):
        job = system.store.ask(Submit("email"), block=True)
        done = system.store.ask(Await(job.id), block=True)
        waits.append((done.started_at - done.created_at).total_seconds())
    return sorted(waits)


def main() -> None:
    """Print every figure beside its baseline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    number = parser.parse_args().jobs

    echo = Echo.start()
    baseline = statistics.median(messages_per_second(echo, number // 4) for _ in range(3))
    echo.stop()
    with start(Settings(simulated_seconds=0)) as system:
        messages = statistics.median(messages_per_second(system.store, number // 4) for _ in range(3))
        waits = seconds_to_start(system, number // 10)
    print(f"asks per second: {messages:.0f}, a plain pykka actor {baseline:.0f}: {messages / baseline:.2f}")
    print(
        f"idle Worker, submit to start: p50 {waits[len(waits) // 2] * 1e3:.2f} ms,"
        f" p99 {waits[len(waits) * 99 // 100] * 1e3:.2f} ms"
    )


if __name__ == "__main__":
    main()
