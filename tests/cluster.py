"""A small cluster whose futures behave as those of Dask do, and the executor that sends work to it.

The cluster is a process of its own, so what runs there goes on when the service is stopped or killed. A
future stays "pending" while its call runs, and can be cancelled all the same. At a SIGUSR1 the cluster hangs
up on all its clients: then their futures are cancelled, and each later `submit` raises.

Give `GOFER_EXECUTOR=tests.cluster:executor` and `CLUSTER=path of a socket`.
"""

import contextlib
import itertools
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from tests.records import note
from tests.service import TOP, eventually


class ClientClosed(Exception):
    """The connection to the cluster is gone."""


class ClusterExecutor(Executor):
    """A client of the cluster."""

    def __init__(self, address: str) -> None:
        self._connection: Connection[Any, Any] = Client(address)
        self._sending = threading.Lock()
        self._numbers = itertools.count()
        self._futures: dict[int, Future[Any]] = {}
        self._is_closed = False
        threading.Thread(target=self._receive, name="client", daemon=True).start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        assert not args
        assert not kwargs
        call = pickle.dumps(fn)
        with self._sending:
            if self._is_closed:
                raise ClientClosed("the client is closed; it cannot send")
            number, future = next(self._numbers), Future[Any]()
            self._futures[number] = future
            with contextlib.suppress(OSError):
                self._connection.send((number, call))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        with self._sending:
            self._is_closed = True
        with contextlib.suppress(OSError):
            hang_up(self._connection)

    def _receive(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                number, result = self._connection.recv()
                future = self._futures.pop(number)
                with contextlib.suppress(Exception):  # It was cancelled.
                    future.set_result(result)
        with self._sending:
            self._is_closed = True
        for future in self._futures.values():
            if future.cancel():
                future.set_running_or_notify_cancel()


def executor() -> Executor:
    return ClusterExecutor(os.environ["CLUSTER"])


def hang_up(connection: "Connection[Any, Any]") -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


def hold(payload: dict[str, Any]) -> int:
    """Run until the file that the payload names is there."""
    note("start", payload["number"])
    while not Path(payload["until"]).exists():
        time.sleep(0.02)
    note("end", payload["number"])
    return os.getpid()


# The process.


@contextlib.contextmanager
def cluster(address: Path, records: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a cluster; what still runs there ends with it."""
    variables = {**os.environ, "RECORDS": str(records)}
    command = [sys.executable, "-m", "tests.cluster", str(address)]
    with subprocess.Popen(command, cwd=TOP, env=variables) as process:
        try:
            eventually(address.exists)
            yield process
        finally:
            process.kill()


def serve(address: str) -> None:
    connections: list[Connection[Any, Any]] = []

    def drop(_signum: int, _frame: object) -> None:
        for connection in connections:
            with contextlib.suppress(OSError):
                hang_up(connection)
        connections.clear()

    signal.signal(signal.SIGUSR1, drop)
    with Listener(address, "AF_UNIX", backlog=16) as listener:
        while True:
            connection = listener.accept()
            connections.append(connection)
            threading.Thread(target=attend, args=(connection,), daemon=True).start()


def attend(connection: "Connection[Any, Any]") -> None:
    sending = threading.Lock()

    def run(number: int, call: bytes) -> None:
        result = pickle.loads(call)()
        with sending, contextlib.suppress(OSError):
            connection.send((number, result))

    with contextlib.suppress(EOFError, OSError):
        while True:
            threading.Thread(target=run, args=connection.recv(), daemon=True).start()


if __name__ == "__main__":
    serve(sys.argv[1])
