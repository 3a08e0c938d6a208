"""What the benchmarks over HTTP compare Gofer with, and the handlers that they give it."""

import json
import os
import queue
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import falcon
import falcon.asgi
import msgspec


class Floor:
    """Decodes the JSON and answers 201: what gunicorn and falcon cost by themselves."""

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Do nothing with the job."""
        msgspec.json.decode(await req.stream.read())
        resp.status = falcon.HTTP_201
        resp.data = b"{}"


class Shown:
    """Answers a GET of any job with the same body, which was made once."""

    def __init__(self, size: int) -> None:
        self._body = b"x" * size

    async def on_get(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response, **_job: str) -> None:
        """Look nothing up."""
        resp.data = self._body


def floor(size: int = 0) -> Any:
    """Return the ASGI app; it shows a job as `size` bytes."""
    app = falcon.asgi.App()
    app.add_route("/jobs", Floor())
    app.add_route("/jobs/{job_id}", Shown(size))
    return app


def echo(payload: Any) -> Any:
    """Return the payload as the result."""
    return payload


def mark(sent: int) -> None:
    """Write down how long ago the job was sent, in nanoseconds."""
    took = time.monotonic_ns() - sent
    with Path(os.environ["BENCHMARK_MARKS"]).open("a") as marks:
        marks.write(f"{took}\n")


#: For GOFER_HANDLERS.
handlers = {"echo": echo, "long": time.sleep, "mark": mark}


class Naive:
    """A dict, a lock, a queue and one thread: the service that one writes first."""

    def __init__(self) -> None:
        self._jobs: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._queue: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Store the job and queue its id."""
        body = json.loads(req.bounded_stream.read())
        job = {
            "id": str(uuid.uuid4()),
            "type": body["type"],
            "payload": body["payload"],
            "status": "pending",
            "created_at": time.time(),
        }
        with self._lock:
            self._jobs[job["id"]] = job
        self._queue.put(job["id"])
        resp.status = falcon.HTTP_201
        resp.text = json.dumps(job)

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """List what is unfinished."""
        with self._lock:
            jobs = list(self._jobs.values())
        resp.media = [job for job in jobs if job["status"] != "completed"][:1]

    def _work(self) -> None:
        while True:
            job_id = self._queue.get()
            with self._lock:
                self._jobs[job_id]["status"] = "processing"
            with self._lock:
                self._jobs[job_id]["status"] = "completed"


def naive() -> Any:
    """Return the WSGI app."""
    app = falcon.App()
    app.add_route("/jobs", Naive())
    return app
