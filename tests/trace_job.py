"""Which way does a job take through the code? Traces one, submitted over HTTP, until it is completed.

All is in this process, the database in a file. A first job, which fills all caches, is not counted. A call
is the start of a function or coroutine under `actors/` or `api/`; its going on after an `await` or a `yield`
is none, and a lambda or a comprehension belongs to the function around it. The caller is the nearest frame
below that is there too, however many of libraries are in between. If that is in another file, it is a call
between files; if there is none, as when falcon, pykka or the event loop begins, an entry from a library.

How often an actor looks into its mailbox before it waits is chance, so all calls may be a few more or less.
Run it from the top of the checkout; with `--calls` it also prints each call between files and each entry:

    .venv/bin/python -m tests.trace_job --calls
"""

import argparse
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple

from falcon.testing import TestClient

from actors import Settings, start
from api import create_app
from tests.service import TOP, eventually

PROJECT: Final = (f"{TOP}/actors/", f"{TOP}/api/")


class Call(NamedTuple):
    """A call, of and by what is given as a file and a name; a library is None."""

    thread: str
    caller: tuple[str, str] | None
    callee: tuple[str, str]


class Trace:
    """A profile function that notes each call. A thread has it from its start, or never."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or code.co_name.startswith("<") or not (callee := function(frame)):
            return
        if code.co_code[frame.f_lasti + 1] == 0:  # The argument of RESUME: this starts and does not go on.
            below = (function(lower) for lower, _ in traceback.walk_stack(frame.f_back))
            self.calls.append(Call(threading.current_thread().name, next(filter(None, below), None), callee))

    def is_quiet(self) -> bool:
        """Tell, after 0.3 seconds, whether nothing was called in them."""
        before = len(self.calls)
        time.sleep(0.3)
        return len(self.calls) == before


def function(frame: FrameType) -> tuple[str, str] | None:
    """Return the file and the name of what runs in the frame if it is the project's."""
    path, name = frame.f_code.co_filename, frame.f_code.co_qualname.split(".<locals>.<")[0]
    return (path.removeprefix(f"{TOP}/"), name) if path.startswith(PROJECT) else None


def stacks() -> dict[int, list[CodeType]]:
    """Return where each other thread is."""
    tops = sys._current_frames()
    del tops[threading.get_ident()]
    return {thread: [frame.f_code for frame, _ in traceback.walk_stack(top)] for thread, top in tops.items()}


def traced(client: TestClient, trace: Trace) -> list[Call]:
    """Submit a job; return all calls until every actor waits again where it waited before."""
    eventually(trace.is_quiet)
    at_rest = stacks()
    trace.calls.clear()
    job = client.simulate_post("/jobs", json={"type": "noop"}).json
    eventually(lambda: trace.is_quiet() and stacks() == at_rest)
    calls = trace.calls.copy()
    assert client.simulate_get(f"/jobs/{job['id']}").json["status"] == "completed"
    return calls


def told(calls: list[Call], *, each: bool) -> Iterator[str]:
    """Yield what was seen, in lines."""
    crossing = [call for call in calls if call.caller is None or call.caller[0] != call.callee[0]]
    if each:
        for thread, caller, callee in crossing:
            yield f"{thread}: {' '.join(caller or ('a library',))} → {' '.join(callee)}"
    functions = {call.callee for call in calls}
    files = {file for file, _ in functions}
    entries = sum(call.caller is None for call in crossing)
    yield f"{len(files)} files, {len(functions)} functions, {len(calls)} calls in all"
    yield f"{len(crossing) - entries} calls between files, {entries} entries from libraries"


def main() -> None:
    """Print what was seen."""
    parser = argparse.ArgumentParser(description="Trace one job through the code.")
    parser.add_argument("--calls", action="store_true", help="print each call between files and each entry")
    options = parser.parse_args()
    trace = Trace()
    threading.setprofile(trace)
    sys.setprofile(trace)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(database=f"{folder}/jobs.db", simulated_seconds=0)
        with start(settings, handlers={"noop": lambda _: None}) as system:
            client = TestClient(create_app(system))
            _, calls = traced(client, trace), traced(client, trace)
    sys.setprofile(None)
    sys.stdout.writelines(f"{line}\n" for line in told(calls, each=options.calls))


if __name__ == "__main__":
    main()
