"""What large jobs take: the memory of the service, or its file, while far more is posted than it may keep.

The capacity and what is kept are 64 MiB each; payloads and results have almost 1 MiB. Clients post as fast as
they can, and take every 429 for an answer.

    .venv/bin/python -m tests.sizes --jobs 10000
    .venv/bin/python -m tests.sizes --jobs 10000 --file
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import httpx

from tests.service import Service, running
from tests.storage import report

MIB: Final = 1024 * 1024
LIMIT: Final = 64 * MIB
#: Bytes of a payload: with the rest of its body, just below the limit of 1 MiB.
PAYLOAD: Final = MIB - 100
CLIENTS: Final = 16
#: What the service may take in memory, in all.
MOST: Final = 2 * 64 * 1.5 * MIB + 80 * MIB


class Sizes(NamedTuple):
    """What was seen; sizes are in bytes, largest first in time: in each quarter of the jobs the most."""

    accepted: int
    refused: int
    memory: list[int]
    #: Of the database, and its write-ahead log: 0 in memory.
    file: list[int]


def echo(payload: str) -> str:
    """Return a result as large as the payload."""
    return payload


handlers = {"echo": echo}


def attack(jobs: int, *, on_a_file: bool) -> Sizes:
    """Post until so many jobs were accepted; look at the service meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder, "jobs.db")
        with running(
            GOFER_DATABASE=str(database) if on_a_file else ":memory:",
            GOFER_HANDLERS="tests.sizes:handlers",
            GOFER_CAPACITY_BYTES=LIMIT,
            GOFER_KEEP_BYTES=LIMIT,
        ) as service:
            return asyncio.run(_attack(service, jobs, database))


async def _attack(service: Service, jobs: int, database: Path) -> Sizes:
    answers = {201: 0, 429: 0}
    memory, file = [0, 0, 0, 0], [0, 0, 0, 0]
    body = b'{"type":"echo","payload":"' + b"x" * PAYLOAD + b'"}'

    async def client() -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}", timeout=60) as http:
            while answers[201] < jobs:
                headers = {"Content-Type": "application/json"}
                response = await http.post("/jobs", content=body, headers=headers)
                answers[response.status_code] += 1
                quarter = min(3, 4 * answers[201] // jobs)
                memory[quarter] = max(memory[quarter], resident(service.worker))
                file[quarter] = max(file[quarter], sum(_sizes(database)))
                if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
                    await asyncio.sleep(0.05)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return Sizes(answers[201], answers[429], memory, file)


def resident(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


def _sizes(database: Path) -> list[int]:
    return [path.stat().st_size for path in database.parent.glob(f"{database.name}*")]


def main() -> int:
    """Run it; 0 if all stayed within its bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--file", action="store_true", help="on a file instead of in memory")
    options = parser.parse_args()
    sizes = attack(options.jobs, on_a_file=options.file)
    report(f"{sizes.accepted} accepted, {sizes.refused} refused")
    for name, seen in (("memory", sizes.memory), ("file", sizes.file)):
        report(f"{name}, most in each quarter: {', '.join(f'{size / MIB:.0f} MiB' for size in seen)}")
    return 0 if max(*sizes.memory, *sizes.file) <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
