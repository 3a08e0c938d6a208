"""Do thousands of clients that wait for jobs hear in time, and cost little? Prints the figures and the bars.

Clients wait with `Prefer: wait=30`, each on a connection of its own: each for a job of its own, of which 200
a second finish; all for one job; while 32 other connections submit; and while the service stops or reloads.
Others leave while they wait. Linux only. Run it from the top of the checkout:

    .venv/bin/python -m tests.waiters
    .venv/bin/python -m tests.waiters --clients 500 --rounds 1
"""

import argparse
import asyncio
import contextlib
import json
import re
import resource
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import uvloop

from tests.service import PATIENCE, Service, eventually, running

#: With these, 200 jobs a second finish.
SECONDS: Final = 0.04
WORKERS: Final = 8
SUBMITTERS: Final = 32
#: Seconds for which they submit in a round.
SUBMITTING: Final = 4.0
#: Connections that are opened at once.
AT_ONCE: Final = 200
#: How often as many clients as wait leave again, and then once more.
WAVES: Final = 5
JOB: Final = b'{"type":"email"}'
#: Seconds after which a job is due, so that all clients wait before.
LATER: Final = 4.0
PREFER: Final = "Prefer: wait=30\r\n"


handlers = {"email": lambda _payload: time.sleep(SECONDS)}


class Heard(NamedTuple):
    """What a client was told, and when by the wall clock."""

    moment: float
    status: int
    body: bytes

    @property
    def job(self) -> dict[str, Any]:
        """The job that it was told."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def delay(self) -> float:
        """Seconds since the job had finished."""
        return self.moment - datetime.fromisoformat(self.job["finished_at"]).timestamp()


class Figure(NamedTuple):
    """What was measured, and what it has to be below."""

    name: str
    value: float
    bar: float

    def __str__(self) -> str:
        verdict = "" if self.value <= self.bar else "  MISSED"
        return f"{self.name:58}{self.value:10.3f}  at most {self.bar:g}{verdict}"


class Client(asyncio.Protocol):
    """One connection with one request on it."""

    transport: asyncio.Transport

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._received = bytearray()
        #: None if the connection ended without a whole answer.
        self.heard: asyncio.Future[Heard | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is not one by name.
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"\ncontent-length: *(\d+)", head, re.IGNORECASE)
        if end and length is not None and len(body) == int(length[1]):
            self.heard.set_result(Heard(time.time(), int(head.split()[1]), bytes(body)))
            self.transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.heard.done():
            self.heard.set_result(None)


def get(job: str, prefer: str = PREFER) -> bytes:
    return f"GET /jobs/{job} HTTP/1.1\r\nHost: localhost\r\n{prefer}\r\n".encode()


def post(body: bytes = JOB, prefer: str = PREFER) -> bytes:
    head = "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}{prefer}Content-Length: {len(body)}\r\n\r\n".encode() + body


@contextlib.asynccontextmanager
async def clients(service: Service, request: bytes, number: int) -> AsyncIterator[list[Client]]:
    """Have so many clients send the request; all have been read when the block is entered."""
    loop, opened = asyncio.get_running_loop(), list[Client]()
    try:
        for first in range(0, number, AT_ONCE):
            many = min(AT_ONCE, number - first)
            pairs = await asyncio.gather(
                *(
                    loop.create_connection(lambda: Client(request), "127.0.0.1", service.port)
                    for _ in range(many)
                )
            )
            opened += [client for _, client in pairs]
        await asyncio.to_thread(service.is_well)  # It is read after all that came before.
        yield opened
    finally:
        for client in opened:
            client.transport.abort()


async def told(waiting: list[Client]) -> list[Heard]:
    """Return what all were told; none may have been cut off."""
    heard = await asyncio.gather(*(client.heard for client in waiting))
    whole = [one for one in heard if one is not None]
    assert len(whole) == len(heard), f"{len(heard) - len(whole)} of {len(heard)} got no answer"
    return whole


def percentile(delays: list[float], share: float) -> float:
    return sorted(delays)[min(len(delays) - 1, int(share * len(delays)))]


def delayed(service: Service) -> str:
    """Submit a job that does not run for long, and return its id."""
    answer = service.client.post("/jobs", json={"type": "email", "delay": 3600}).raise_for_status()
    return str(answer.json()["id"])


def memory(pid: int) -> int:
    """Return the bytes of memory that the process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


@contextlib.contextmanager
def served(**settings: Path) -> Iterator[Service]:
    with tempfile.TemporaryDirectory() as folder:
        ours = {"GOFER_DATABASE": Path(folder, "jobs.db"), **settings}
        with running(
            **ours,
            GOFER_HANDLERS="tests.waiters:handlers",
            GOFER_WORKERS=WORKERS,
            GOFER_CAPACITY=10_000_000,
        ) as service:
            yield service


async def each_its_own(service: Service, number: int, later: float = LATER) -> list[float]:
    """Have each client submit a job and wait for it; return the delays with which they heard."""
    job = json.dumps({"type": "email", "delay": later}).encode()
    async with clients(service, post(job), number) as waiting:
        heard = await told(waiting)
    assert Counter((one.status, one.job["status"]) for one in heard) == {(201, "completed"): number}
    return [one.delay for one in heard]


async def lateness(seconds: float) -> float:
    """Return by how much this machine, as busy as it is, wakes a sleeper late (p99)."""
    late, end = list[float](), time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        await asyncio.sleep(1 / 200)
        late.append(time.monotonic() - begun - 1 / 200)
    return percentile(late, 0.99)


async def all_for_one(service: Service, number: int) -> tuple[float, float]:
    """Have all clients wait for one job; return the bytes that each took, and when the last one heard."""
    job, before = delayed(service), memory(service.worker)
    async with clients(service, get(job), number) as waiting:
        size = (memory(service.worker) - before) / number
        assert not any(client.heard.done() for client in waiting)
        await asyncio.to_thread(service.client.delete, f"/jobs/{job}")
        heard = await told(waiting)
    assert Counter((one.status, one.job["status"]) for one in heard) == {(200, "cancelled"): number}
    return size, max(one.delay for one in heard)


async def leaving(service: Service, number: int, waves: int) -> int:
    """Have clients leave that wait for one job; return by how many bytes the service has grown then.

    It keeps what the first waves took for the next: gunicorn's connections are circles, which the garbage
    collector finds only now and then.
    """
    job, before = delayed(service), 0
    for wave in range(2 * waves):
        if wave == waves:
            before = memory(service.worker)
        async with clients(service, get(job), number):
            pass
        await gone(service)
    return memory(service.worker) - before


async def gone(service: Service) -> None:
    """Wait until the service has closed the connections of all clients that have left."""
    await asyncio.to_thread(eventually, lambda: connections(service) <= 1)


def connections(service: Service) -> int:
    """Return how many connections are open at the service's port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ours = [line.split() for line in lines if line.split()[1].endswith(f":{service.port:04X}")]
    return sum(fields[3] in ("01", "08") for fields in ours)


async def submit(service: Service, seconds: float) -> float:
    """Submit on all connections, one job after the other; return how many were answered a second."""
    request, end, done = post(prefer=""), time.monotonic() + seconds, 0

    async def share() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        while time.monotonic() < end:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"\ncontent-length: *(\d+)", head, re.IGNORECASE)
            assert length is not None
            await reader.readexactly(int(length[1]))
            done += head.startswith(b"HTTP/1.1 201")
        writer.close()

    begun = time.monotonic()
    await asyncio.gather(*(share() for _ in range(SUBMITTERS)))
    return done / (time.monotonic() - begun)


async def submitting(number: int, seconds: float, *, are_awaited: bool) -> tuple[float, list[float]]:
    """Submit while so many earlier jobs run, with a client that waits for each or without.

    Return how many were submitted a second, and the delays with which the clients heard.
    """
    with served() as service:
        async with clients(service, post(prefer=PREFER if are_awaited else ""), number) as waiting:
            begun = time.time()
            rate = await submit(service, seconds)
            heard = [client.heard.result() for client in waiting if client.heard.done()]
    in_time = [one for one in heard if one is not None and one.moment > begun]
    return rate, [one.delay for one in in_time] if are_awaited else []


async def stopped(service: Service, number: int, signum: signal.Signals) -> tuple[float, Counter[str]]:
    """Signal the service while clients wait; return after how long the last heard, and what they heard."""
    job = delayed(service)
    async with clients(service, get(job), number) as waiting:
        begun = time.time()
        service.master.send_signal(signum)
        heard = await told(waiting)
    return max(one.moment for one in heard) - begun, Counter(one.job["status"] for one in heard)


def measured(number: int, rounds: int) -> Iterator[Figure]:
    """Yield all figures."""
    late = uvloop.run(lateness(5))
    yield Figure("this machine wakes a sleeper late: p99 (ms)", late * 1e3, 5)
    with served() as service:
        size, last = uvloop.run(all_for_one(service, number))
        yield Figure("each takes (kB)", size / 1e3, 50)
        yield Figure("all for one job: the last heard after (s)", last, 0.5)
        delays = uvloop.run(each_its_own(service, number))
        yield Figure("each for its own job: p99 heard after (ms)", percentile(delays, 0.99) * 1e3, 50)
        growth = uvloop.run(leaving(service, number, WAVES))
        yield Figure(f"{number * WAVES} clients that leave, after as many: take (MB)", growth / 1e6, 10)
        seconds, statuses = uvloop.run(stopped(service, number, signal.SIGHUP))
        yield Figure(f"reload: all heard ({dict(statuses)}) after (s)", seconds, PATIENCE)
        eventually(service.is_well)
        seconds, statuses = uvloop.run(stopped(service, number, signal.SIGTERM))
        yield Figure(f"stop: all heard ({dict(statuses)}) after (s)", seconds, 1.2)
        begun = time.monotonic()
        assert service.master.wait(PATIENCE) == 0, service.log
        yield Figure("stop: the exit came after that by (s)", time.monotonic() - begun, 2)
    yield from submitters(number, rounds)


def submitters(number: int, rounds: int) -> Iterator[Figure]:
    """Yield what the clients that wait cost those that submit."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    delays: list[float] = []
    for _ in range(rounds):
        for are_awaited, seen in rates.items():
            rate, heard = uvloop.run(submitting(number, SUBMITTING, are_awaited=are_awaited))
            seen.append(rate)
            delays += heard
    without, beside = (statistics.median(seen) for seen in rates.values())
    lost = (1 - statistics.median(b / a for a, b in zip(*rates.values(), strict=True))) * 100
    yield Figure(f"submits: {without:.0f}/s alone, {beside:.0f}/s beside: lost (%)", lost, 15)
    yield Figure("meanwhile the clients that wait: p99 heard after (ms)", percentile(delays, 0.99) * 1e3, 500)


def main() -> None:
    """Print the figures; exit with 1 if a bar was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=2000, help="how many wait (2000)")
    parser.add_argument("--rounds", type=int, default=5, help="how often others submit beside them (5)")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    is_missed = False
    for figure in measured(options.clients, options.rounds):
        sys.stdout.write(f"{figure}\n")
        sys.stdout.flush()
        is_missed |= figure.value > figure.bar
    sys.exit(is_missed)


if __name__ == "__main__":
    main()
