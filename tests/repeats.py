"""Is one key one job? Many clients post the same job under one key at once, and the service is disturbed.

In each round 200 connections send one request, all together. Meanwhile nothing happens, or the process that
serves gets a SIGKILL, or the service a SIGHUP. Who got no answer repeats the request until there is one. Then
all answers must name the same job, at most one may be the first, and there is one job. Run it from the top of
the checkout:

    .venv/bin/python -m tests.repeats --rounds 100
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from tests.service import PATIENCE, Service, eventually, running

CLIENTS: Final = 200
#: Seconds after the first request at which the service is disturbed, at most.
LATEST: Final = 0.2


class Answer(NamedTuple):
    """What one request came to."""

    status: int
    job: str
    is_replayed: bool


async def post(port: int, key: str, body: bytes) -> Answer | None:
    """Submit on a connection of its own; None if there was no whole answer."""
    head = (
        "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f'Idempotency-Key: "{key}"\r\nContent-Length: {len(body)}\r\n\r\n'
    )
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(head.encode() + body)
            answer, _, content = (await asyncio.wait_for(reader.read(), PATIENCE)).partition(b"\r\n\r\n")
        finally:
            writer.close()
        found = json.loads(content)
    except (OSError, ValueError, TimeoutError):
        return None
    is_replayed = b"idempotent-replayed: true" in answer.lower()
    return Answer(int(answer.split()[1]), str(found.get("id")), is_replayed)


async def storm(port: int, key: str, body: bytes, disturb: Callable[[], None], delay: float) -> list[Answer]:
    """Send it from all clients, and disturb the service meanwhile; return the answers that there were."""
    requests = [asyncio.ensure_future(post(port, key, body)) for _ in range(CLIENTS)]
    await asyncio.sleep(delay)
    disturb()
    return [answer for answer in await asyncio.gather(*requests) if answer is not None]


def kill(service: Service) -> None:
    """End the process that serves; the master starts another."""
    os.kill(int(re.findall(r"Booting worker with pid: (\d+)", service.log)[-1]), signal.SIGKILL)


def reload(service: Service) -> None:
    """Have another process take over."""
    service.master.send_signal(signal.SIGHUP)


def leave(_service: Service) -> None:
    """Do nothing."""


DISTURBANCES: Final[dict[str, Callable[[Service], None]]] = {"none": leave, "kill": kill, "reload": reload}


def problem(service: Service, number: int, how: str, delay: float) -> str | None:
    """Post once more than once; return what was wrong, if anything."""
    key, job_type = f"key-{number}", f"type-{number}"
    body = json.dumps({"type": job_type, "payload": {"number": number}}).encode()
    disturb = DISTURBANCES[how]
    answers = asyncio.run(storm(service.port, key, body, lambda: disturb(service), delay))
    accepted = [answer for answer in answers if answer.status == 201]
    if how != "kill" and len(accepted) < CLIENTS:
        return f"{CLIENTS - len(accepted)} of {CLIENTS} requests were not accepted"
    accepted.append(eventually(lambda: _accepted(service, key, body)))
    if len({answer.job for answer in accepted}) > 1:
        return f"several jobs: {accepted}"
    if sum(not answer.is_replayed for answer in accepted) > 1:
        return f"several first answers: {accepted}"
    stored = [job["id"] for job in service.jobs(type=job_type)]
    return None if stored == [accepted[0].job] else f"stored: {stored}, answered: {accepted[0].job}"


def _accepted(service: Service, key: str, body: bytes) -> Answer | None:
    answer = asyncio.run(post(service.port, key, body))
    return answer if answer and answer.status == 201 else None


def main() -> None:
    """Print what was seen; exit with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100, help="how many rounds (100)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    chance, faults = random.Random(options.seed), 0
    sys.stdout.write(f"{options.rounds} rounds, seed {options.seed}\n")
    with (
        tempfile.TemporaryDirectory() as folder,
        running(GOFER_DATABASE=Path(folder, "jobs.db"), GOFER_SIMULATED_SECONDS=0) as service,
    ):
        for number in range(options.rounds):
            how = chance.choice(list(DISTURBANCES))
            if found := problem(service, number, how, chance.uniform(0, LATEST)):
                faults += 1
                sys.stdout.write(f"round {number}, {how}: {found}\n")
    sys.stdout.write(f"{faults} of {options.rounds} rounds went wrong\n")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
