"""Programs that use Gofer as a library: however they end, they end, and nothing of theirs is lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pykka
import pytest

from actors import Get, Job, ListJobs, Settings, Submit, start
from actors.errors import StorageFailed
from actors.store import Database
from tests.service import PATIENCE, TOP, eventually

#: What every program here begins with. Its log goes to stderr.
BEGIN = """
import asyncio, logging.config, os, pykka, signal, sys, threading, time
from actors import Await, Get, Settings, Submit, log, start
logging.config.dictConfig(log.config("INFO"))
settings = Settings(database=sys.argv[1], grace=1)
is_running = threading.Event()

def plain(payload):
    is_running.set()
    time.sleep(payload)
    return "done"

def steps(payload):
    while True:
        is_running.set()
        yield
        time.sleep(0.01)

def stop(payload):
    system.stop()
    return "stopped"

handlers = {"plain": plain, "steps": steps, "stop": stop}

def begin(job_type, payload=0):
    job = system.store.ask(Submit(job_type, payload))
    is_running.wait()
    return job
"""


class End(NamedTuple):
    code: int
    out: str
    log: str
    seconds: float


def run(program: str, database: Path) -> End:
    """Run a program to its end."""
    before = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", BEGIN + program, str(database)],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return End(ended.returncode, ended.stdout, ended.stderr, time.monotonic() - before)


def only_job(database: Path) -> Job:
    """Return the one job in the file, as the program left it."""
    with closing(Database(str(database))) as left:
        (found,) = left.page(ListJobs())
        return left.existing(found.id)[0]


#: Seconds within which a program without a running job ends, with all that it takes to start Python.
SOON = 5.0

IDLE = {
    "without a stop": "system = start(settings, handlers)",
    "the system is not kept": "start(settings, handlers)",
    "by pykka": "system = start(settings, handlers); pykka.ActorRegistry.stop_all()",
    "by pykka inside a with": "with start(settings, handlers): pykka.ActorRegistry.stop_all()",
    "the JobStore is stopped": "system = start(settings, handlers); system.store.stop()",
    "in an event loop": """
async def main():
    system = start(settings, handlers)
    job = await system.store.ask(Submit("plain", 0), block=False)
    print((await system.store.ask(Await(job.id), block=False)).status)
asyncio.run(main())""",
    "in an event loop, with a with": """
async def main():
    with start(settings, handlers) as system:
        await system.store.ask(Submit("plain", 0), block=False)
asyncio.run(main())""",
    "twice": "with start(settings, handlers) as system: pass\nsystem.stop()",
    "two of them": "one = start(settings, handlers)\nother = start()",
}


@pytest.mark.parametrize("way", IDLE)
def test_a_program_whose_system_is_idle_ends_soon(way: str, tmp_path: Path) -> None:
    ended = run(IDLE[way], tmp_path / "jobs.db")
    assert ended.code == 0, ended.log
    assert "Traceback" not in ended.log
    assert '"stopped"' in ended.log
    assert ended.seconds < SOON
    assert {path.name for path in tmp_path.iterdir()} == {"jobs.db", "jobs.db-lock"}


@pytest.mark.parametrize(
    ("end", "code"),
    [("", 0), ("sys.exit(3)", 3), ("1 / 0", 1), ("os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT)],
    ids=["the last line", "sys.exit", "an exception", "Ctrl-C"],
)
@pytest.mark.parametrize("is_with", [False, True], ids=["without a stop", "in a with"])
def test_however_a_program_ends_its_running_job_is_waited_for(
    *, is_with: bool, end: str, code: int, tmp_path: Path
) -> None:
    body = f'begin("plain", 0.3); {end}'
    begin = (
        "with start(settings, handlers) as system:\n    "
        if is_with
        else "system = start(settings, handlers)\n"
    )
    ended = run(begin + body, tmp_path / "jobs.db")
    assert ended.code in (code, 130 if code == -signal.SIGINT else code), ended.log
    assert ended.log.count("waiting_for_jobs") == 1
    job = only_job(tmp_path / "jobs.db")
    assert (job.status, job.attempts) == ("completed", 1)


def test_a_job_that_yields_is_given_back_at_the_end_of_the_grace(tmp_path: Path) -> None:
    ended = run('system = start(settings, handlers); begin("steps")', tmp_path / "jobs.db")
    assert ended.code == 0, ended.log
    job = only_job(tmp_path / "jobs.db")
    assert (job.status, job.attempts) == ("pending", 0)


def test_a_job_that_never_yields_is_cut_off_and_named(tmp_path: Path) -> None:
    ended = run('system = start(settings, handlers); print(begin("plain", 60).id)', tmp_path / "jobs.db")
    assert ended.code == 0, ended.log
    (line,) = [line for line in ended.log.splitlines() if "job_cut_off" in line]
    assert ended.out.strip() in line
    assert '"type": "plain"' in line
    assert '"stopped"' in ended.log
    assert ended.seconds < 1 + 3 + SOON


def test_a_second_ctrl_c_ends_the_wait(tmp_path: Path) -> None:
    ended = run(
        """
settings = Settings(database=sys.argv[1], grace=3600)
class Once(logging.Handler):
    def emit(self, record):
        if "waiting_for_jobs" in record.getMessage():
            logging.getLogger("gofer").removeHandler(self)
            os.kill(os.getpid(), signal.SIGINT)
logging.getLogger("gofer").addHandler(Once())
with start(settings, handlers) as system:
    begin("plain", 3600)
    os.kill(os.getpid(), signal.SIGINT)
""",
        tmp_path / "jobs.db",
    )
    assert ended.code in (130, -signal.SIGINT)
    assert '"stopped"' in ended.log


def test_a_handler_can_stop_the_system_that_runs_it(tmp_path: Path) -> None:
    ended = run(
        """
system = start(settings, handlers)
begun = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
system.store.tell(Submit("stop"))
for thread in begun:
    thread.join()
""",
        tmp_path / "jobs.db",
    )
    assert ended.code == 0, ended.log
    assert "Traceback" not in ended.log
    job = only_job(tmp_path / "jobs.db")
    assert (job.status, job.result) == ("completed", "stopped")


def test_a_thread_of_the_programs_own_may_use_the_system_after_the_main_thread(tmp_path: Path) -> None:
    ended = run(
        """
system = start(settings, handlers)
def work():
    threading.main_thread().join()
    print(system.store.ask(Await(system.store.ask(Submit("plain", 0)).id)).status)
threading.Thread(target=work).start()
""",
        tmp_path / "jobs.db",
    )
    assert (ended.code, ended.out) == (0, "completed\n"), ended.log
    assert '"stopped"' in ended.log


def test_a_handler_can_use_a_pool_of_threads_while_the_program_ends(tmp_path: Path) -> None:
    ended = run(
        """
from concurrent.futures import ThreadPoolExecutor
is_ending = threading.Event()
class Watch(logging.Handler):
    def emit(self, record):
        if "waiting_for_jobs" in record.getMessage():
            is_ending.set()
logging.getLogger("gofer").addHandler(Watch())
def pooled(payload):
    is_running.set()
    is_ending.wait()
    with ThreadPoolExecutor() as pool:
        return pool.submit(lambda: "from a pool").result()
system = start(settings, {"pooled": pooled})
begin("pooled")
""",
        tmp_path / "jobs.db",
    )
    assert ended.code == 0, ended.log
    job = only_job(tmp_path / "jobs.db")
    assert job.result == "from a pool"


def test_a_second_system_on_a_file_is_told_that_this_process_has_it(tmp_path: Path) -> None:
    settings = Settings(database=str(tmp_path / "jobs.db"), simulated_seconds=0)
    reason = rf"process {os.getpid()}, this one; stop the other system"
    with start(settings), pytest.raises(StorageFailed, match=reason):
        start(settings)
    start(settings).stop()


def test_all_that_pykka_stops_is_stopped_and_gives_the_file_back(tmp_path: Path) -> None:
    settings = Settings(database=str(tmp_path / "jobs.db"), workers=4, simulated_seconds=0)
    before = set(threading.enumerate())
    system = start(settings)
    job = system.store.ask(Submit("email", delay=3600))
    pykka.ActorRegistry.stop_all()
    eventually(lambda: set(threading.enumerate()) == before)
    with start(settings) as later:
        assert later.store.ask(Get(job.id)).status == "pending"
    system.stop()


def test_a_stop_in_another_thread_meanwhile_is_waited_for() -> None:
    system = start(Settings(workers=2))
    other = threading.Thread(target=system.stop)
    other.start()
    system.stop()
    other.join(PATIENCE)
    assert not other.is_alive()
    with pytest.raises(pykka.ActorDeadError):
        system.store.ask(ListJobs())
