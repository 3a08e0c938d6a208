"""Which thread works on the JSON of payloads and results: never the JobStore's."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import falcon.testing
import msgspec

from actors import Await, opaque, start
from api import create_app

#: Seconds after which a test gives up; nothing waits for so long unless it is broken.
LIMIT = 20.0

#: What was called, by thread.
Calls = list[tuple[str, str]]


@contextmanager
def json_calls() -> Iterator[Calls]:
    """Note each call into msgspec and into `opaque`, of this thread and of those that start meanwhile."""
    calls: Calls = []

    def note(frame: FrameType, event: str, called: Any) -> None:
        if event == "call" and frame.f_code.co_filename == opaque.__file__:
            calls.append((threading.current_thread().name, f"opaque.{frame.f_code.co_name}"))
        if event == "c_call" and is_json(called):
            calls.append(
                (threading.current_thread().name, f"msgspec.{called.__name__.removeprefix('json_')}")
            )

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def is_json(called: Any) -> bool:
    """Tell whether it is a function of msgspec that reads or writes JSON, or a method of such a coder."""
    is_coder = isinstance(called.__self__, msgspec.json.Encoder | msgspec.json.Decoder)
    return is_coder or called in (msgspec.json.encode, msgspec.json.decode)


def test_the_job_store_does_no_work_on_the_json_of_a_payload_or_a_result() -> None:
    with json_calls() as calls, start(handlers={"echo": lambda payload: payload}) as system:
        http = falcon.testing.TestClient(create_app(system))
        body = b'{"type":"echo","payload":{"to":["you"]}}'
        posted = http.simulate_post("/jobs", body=body, headers={"Content-Type": "application/json"})
        job_id = posted.headers["location"].removeprefix("/jobs/")
        system.store.ask(Await(job_id), block=True, timeout=LIMIT)
        shown = http.simulate_get(f"/jobs/{job_id}")
        assert b'"payload":{"to":["you"]},"result":{"to":["you"]}' in shown.content
        seen = calls.copy()
    threads = {thread.split("-")[0] for thread, _ in seen}
    assert threads == {threading.current_thread().name, "Worker"}, seen
    here = {call for thread, call in seen if thread == threading.current_thread().name}
    assert {"opaque.parsed", "msgspec.decode", "msgspec.encode"} <= here
    in_worker = {call for thread, call in seen if thread.startswith("Worker")}
    assert {"opaque.decode", "msgspec.decode", "opaque.encode", "msgspec.encode"} <= in_worker


def test_work_in_the_job_store_would_be_seen() -> None:
    def touch() -> None:
        opaque.decode(opaque.encode({"a": 1}))

    with json_calls() as calls:
        thread = threading.Thread(target=touch, name="JobStore-9")
        thread.start()
        thread.join()
    assert {call for thread, call in calls if thread == "JobStore-9"} == {
        *("opaque.encode", "opaque.checked", "opaque.parsed", "opaque._depth", "opaque.decode"),
        *("msgspec.encode", "msgspec.decode"),
    }
