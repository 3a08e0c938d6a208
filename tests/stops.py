"""Does every stop go its way? Stops a service at random moments of its boot, its work and its reloads.

Each time the service has to end by itself, soon after the grace, without a SIGKILL or a traceback; what had
started must have stopped, and no process, lock or WAL may be left. Run it from the top of the checkout:

    .venv/bin/python -m tests.stops --rounds 200
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

from actors import GoferError, own
from tests.service import COMMAND, TOP, eventually

#: Seconds that running jobs get, and those until gunicorn's master would kill its worker.
GRACE: Final = 1
LIMIT: Final = GRACE + 5
#: Seconds more after which a service counts as one that hangs.
SLACK: Final = 5.0
#: Seconds of each phase among which the moment of the signal is chosen.
PHASES: Final = {"boot": 1.5, "work": 1.0, "reload": 2.0}
JOBS: Final = (("sleep", 0.05), ("sleep", 0.5), ("sleep", 30), ("steps", 0.5), ("steps", 30))


def sleep(seconds: float) -> None:
    """Let go of the GIL, but never yield."""
    time.sleep(seconds)


def steps(seconds: float) -> Iterator[None]:
    """Yield every now and then."""
    for _ in range(int(seconds * 50)):
        yield
        time.sleep(0.02)


handlers: Final = {"sleep": sleep, "steps": steps}


class Stop(NamedTuple):
    """One stop, and what was wrong with it."""

    phase: str
    after: float
    code: int
    seconds: float
    faults: list[str]


class Round:
    """A service that is stopped once."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._database = folder / "jobs.db"
        self._log = folder / "log"
        self._chance = chance
        self.phase = chance.choice(list(PHASES))
        self.after = chance.uniform(0, PHASES[self.phase])

    def stop(self) -> Stop:
        """Start the service, stop it in its phase, and look at what is left."""
        given = {
            "PORT": 0,
            "GOFER_DATABASE": self._database,
            "GOFER_HANDLERS": "tests.stops:handlers",
            "GOFER_GRACE": GRACE,
            "GOFER_WORKERS": 3,
        }
        variables = {**os.environ, **{name: str(value) for name, value in given.items()}}
        with self._log.open("wb") as log:
            master = subprocess.Popen(COMMAND, cwd=TOP, env=variables, stderr=log, start_new_session=True)
        try:
            self._come_to_phase(master)
            time.sleep(self.after)
            began = time.monotonic()
            master.terminate()
            try:
                code, late = master.wait(LIMIT + SLACK), False
            except subprocess.TimeoutExpired:
                code, late = 0, True
            seconds = time.monotonic() - began
            faults = ["it hangs"] if late else [*self._faults(code, seconds), *self._left(master.pid)]
            return Stop(self.phase, self.after, code, seconds, faults)
        finally:
            _kill_group(master.pid)
            master.wait()

    def _come_to_phase(self, master: subprocess.Popen[bytes]) -> None:
        if self.phase == "boot":
            return
        port = eventually(lambda: next((event["address"] for event in self._events("ready")), None))
        _submit(port, [self._chance.choice(JOBS) for _ in range(self._chance.randrange(6))])
        if self.phase == "reload":
            time.sleep(self._chance.uniform(0, 0.5))
            master.send_signal(signal.SIGHUP)

    def _events(self, text: str) -> list[dict[str, Any]]:
        lines = [line for line in self._log.read_text().splitlines(keepends=True) if line.endswith("}\n")]
        return [event for event in map(json.loads, lines) if event["event"] == text]

    def _faults(self, code: int, seconds: float) -> Iterator[str]:
        log = self._log.read_text()
        if code != 0 and (code != -signal.SIGTERM or "Booting worker" in log):
            yield f"exit code {code}"
        if seconds > LIMIT:  # Then the master kills.
            yield f"it took {seconds:.1f} s"
        yield from (f"{word} in the log" for word in ("SIGKILL", "Traceback", '"error"') if word in log)
        started, stopped = (len(self._events(text)) for text in ("ready", "stopped"))
        if started > stopped:
            yield f"{started} started, {stopped} stopped"

    def _left(self, group: int) -> Iterator[str]:
        try:
            os.killpg(group, 0)
            yield "a process is left"
        except ProcessLookupError:
            pass
        try:
            ownership = own(str(self._database), wait=False)
            assert ownership is not None
            ownership.release()
        except GoferError as error:
            yield str(error)
        if self._database.with_name("jobs.db-wal").exists():
            yield "a WAL is left"


def _submit(address: str, jobs: list[tuple[str, float]]) -> None:
    for job_type, seconds in jobs:
        body = json.dumps({"type": job_type, "payload": seconds})
        command = ["curl", "-sf", "-d", body, "-H", "Content-Type: application/json", f"{address}/jobs"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def stopped(seed: int) -> Stop:
    """Stop one service; the same seed chooses the same moment."""
    with tempfile.TemporaryDirectory() as folder:
        stop = Round(Path(folder), random.Random(seed)).stop()
        if stop.faults:
            sys.stderr.write(Path(folder, "log").read_text())
        return stop


def main() -> None:
    """Stop many, and say how that went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--at-once", type=int, default=2)
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.rounds)
    with ThreadPoolExecutor(options.at_once) as pool:
        stops = list(pool.map(stopped, seeds))
    for seed, stop in zip(seeds, stops, strict=True):
        if stop.faults:
            sys.stdout.write(
                f"seed {seed}: {stop.phase} after {stop.after:.3f} s: {', '.join(stop.faults)}\n"
            )
    phases = ", ".join(f"{count} in {phase}" for phase, count in Counter(s.phase for s in stops).items())
    slowest = max(stops, key=lambda stop: stop.seconds)
    bad = sum(bool(stop.faults) for stop in stops)
    end = f"the slowest, in {slowest.phase}, took {slowest.seconds:.1f} s"
    sys.stdout.write(f"{len(stops)} stops ({phases}), {bad} with faults; {end}\n")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
