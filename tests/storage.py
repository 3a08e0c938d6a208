"""What the tests of durability share: handlers, a look into a database file, tools that may be missing."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from actors import Await, Settings, start

HANDLERS = "tests.storage:handlers"
#: The files of a database, after its name.
SUFFIXES = ("", "-wal", "-journal")
OPEN = ("pending", "processing")
#: Seconds that a job may take to be run to its end after a restart.
FINISH = 60.0


def _wait_at_gate(payload: dict[str, Any]) -> str:
    """Wait until somebody opens the FIFO for writing and closes it; return what was written."""
    return Path(payload["gate"]).read_text()


handlers = {
    "wait": _wait_at_gate,
    "grow": lambda payload: "x" * payload["size"],
    "email": lambda _: None,
}


def statuses(database: Path) -> dict[str, str]:
    """Return each job's status, as SQLite reads it from the file; see that the file is sound."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT id, status FROM jobs ORDER BY id").fetchall()
    return {f"{job_id:016x}": status for job_id, status in rows}


def peek(database: Path) -> dict[str, str]:
    """Return each job's status without touching the file, as the next start will find it."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in SUFFIXES:
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(f"{database}{suffix}", folder)
        return statuses(Path(folder, database.name))


def run_to_the_end(database: Path) -> dict[str, str]:
    """Start Gofer on the file, wait until every job is finished, stop; return each job's status."""
    unfinished = [job_id for job_id, status in peek(database).items() if status in OPEN]
    settings = Settings(database=str(database), workers=4, simulated_seconds=0)
    with start(settings) as system:
        waits = [system.store.ask(Await(job_id), block=False) for job_id in unfinished]
        for wait in waits:
            wait.get(timeout=FINISH)
    return statuses(database)


def report(text: str) -> None:
    """Say what was measured and is not judged; pytest -rP shows it."""
    print(text)  # noqa: T201


def cpu_seconds(pid: int) -> float:
    """Return how much CPU time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _strace_is_possible() -> bool:
    if shutil.which("strace") is None:
        return False
    attempt = subprocess.run(["strace", "-o", os.devnull, "true"], stderr=subprocess.DEVNULL, check=False)
    return attempt.returncode == 0


needs_strace = pytest.mark.skipif(
    not _strace_is_possible(),
    reason="needs strace, and the right to trace: apt-get install strace; in a container: SYS_PTRACE",
)
