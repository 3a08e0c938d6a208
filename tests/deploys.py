"""Does a deploy or a poison job fail a job that has done nothing wrong?

One plain job outlasts ten deploys: the service is stopped and started again while it runs, first with a
SIGTERM alone, then with a SIGKILL some seconds after it, as a container's end is. Nothing may be failed, and
the job completes when it is let; under GOFER_ON_CRASH=fail the first cut fails it. Then a job that aborts the
process runs next to seven others: these complete, and it alone is failed, after at most four crashes. Run it
from the top of the checkout:

    .venv/bin/python -m tests.deploys --rounds 10
"""

import argparse
import contextlib
import itertools
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx

from tests.crashes import workers
from tests.recording import recording
from tests.records import doubled, executions
from tests.service import Service, eventually

#: Seconds from a SIGTERM to the SIGKILL.
CONTAINER: Final = 3.0
BYSTANDERS: Final = 7
MOST_CRASHES: Final = 4
#: Seconds that a bystander takes, and those after which the poison job aborts.
LENGTH: Final = 2.0
#: Seconds that all this may take.
PATIENT: Final = 60.0
ABORT: Final = 0.3


def submit(service: Service, job_type: str, number: int, **payload: Any) -> str:
    body = {"type": job_type, "payload": {"number": number, **payload}}
    return str(service.client.post("/jobs", json=body).raise_for_status().json()["id"])


def end(service: Service, kill_after: float | None) -> int:
    """Stop the service, or kill it so long after it was told to stop; return its exit code."""
    service.master.send_signal(signal.SIGTERM)
    if kill_after is None:
        return service.master.wait()
    time.sleep(kill_after)
    os.killpg(service.master.pid, signal.SIGKILL)
    service.master.wait()
    return 0


def deploys(
    folder: Path, rounds: int, grace: int, kill_after: float | None, on_crash: str = "retry"
) -> Iterator[str]:
    """Deploy again and again over one job; yield what is wrong."""
    job, let = "", folder / "let"
    for number in range(rounds):
        with recording(folder, GOFER_GRACE=grace, GOFER_ON_CRASH=on_crash) as service:
            eventually(service.is_well)
            job = job or submit(service, "until", 1, file=str(let))
            service.wait_for(job, "processing")
            if (attempts := service.job(job)["attempts"]) != number + 1:
                yield f"attempt {attempts} after {number} deploys"
            if code := end(service, kill_after):
                yield f"deploy {number} ended with exit code {code}"
    let.touch()
    with recording(folder, GOFER_ON_CRASH=on_crash) as service:
        eventually(service.is_well)
        expected = "completed" if on_crash == "retry" else "failed"
        ended = eventually(lambda: j if (j := service.job(job)).get("finished_at") else None)
    if ended["status"] != expected:
        yield f"it is {ended['status']}: {ended.get('last_error')}"
    if on_crash == "fail" and "GOFER_ON_CRASH=fail" not in ended["last_error"]:
        yield f"it failed without saying why: {ended['last_error']}"
    if len(executions(folder / "records")) != rounds + (on_crash == "retry"):
        yield f"{len(executions(folder / 'records'))} runs in {rounds} deploys"
    yield from (f"run by two processes at once: {pair}" for pair in doubled(folder / "records"))


def poison(folder: Path, length: float = LENGTH) -> Iterator[str]:
    """Run a job that aborts the process next to others; yield what is wrong."""
    with recording(folder, GOFER_WORKERS=BYSTANDERS + 1) as service:
        eventually(service.is_well)
        others = [submit(service, "ticks", number, seconds=length) for number in range(BYSTANDERS)]
        bad = submit(service, "abort", BYSTANDERS, seconds=ABORT)
        failed = eventually(lambda: seen(service, bad, "failed"), PATIENT)
        jobs = [eventually(lambda: seen(service, job, "completed"), PATIENT) for job in others]  # noqa: B023
        crashes = len(workers(service)) - 1
    if crashes > MOST_CRASHES:
        yield f"{crashes} crashes"
    if not failed["last_error"].startswith("the process crashed"):
        yield f"the poison failed because of this: {failed['last_error']}"
    if any(job["attempts"] > crashes + 1 for job in jobs):
        yield "a bystander has more attempts than there were processes"


def seen(service: Service, job: str, status: str) -> dict[str, Any] | None:
    """Return the job if it has this status; a crash may cut the answer off."""
    with contextlib.suppress(httpx.TransportError):
        return found if (found := service.job(job))["status"] == status else None
    return None


def main() -> None:
    """Do it all; exit with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10, help="how many deploys of each kind (10)")
    parser.add_argument("--grace", type=int, default=25, help="GOFER_GRACE (25)")
    options = parser.parse_args()
    rounds, grace = options.rounds, options.grace
    bad = False
    with tempfile.TemporaryDirectory() as top:
        folders = (Path(tempfile.mkdtemp(dir=top)) for _ in itertools.count())
        parts = {
            f"{rounds} deploys with SIGTERM": deploys(next(folders), rounds, grace, None),
            f"{rounds} deploys with SIGKILL": deploys(next(folders), rounds, grace, CONTAINER),
            "one deploy with SIGTERM, at most once": deploys(next(folders), 1, grace, None, "fail"),
            "one deploy with SIGKILL, at most once": deploys(next(folders), 1, grace, CONTAINER, "fail"),
            "a poison job next to others": poison(next(folders)),
        }
        for part, faults in parts.items():
            began, found = time.monotonic(), list(faults)
            bad |= bool(found)
            sys.stdout.write(f"{part}, {time.monotonic() - began:.0f} s: {found or 'nothing wrong'}\n")
            sys.stdout.flush()
    sys.exit(bad)


if __name__ == "__main__":
    main()
