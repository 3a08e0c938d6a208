"""Handlers and executors that other processes can import, for the tests."""

import contextlib
import logging
import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Generator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import msgspec
import pykka

from actors import handler
from actors.store.jobstore import JobStore
from actors.work.worker import Worker

#: Seconds after which a handler or a test gives up; nothing waits for so long unless it is broken.
LIMIT = 60.0

Payload = dict[str, Any]

# What a handler that is to be watched does: it calls, and waits for the answer.


class Call(NamedTuple):
    """A handler that runs and waits."""

    #: What its payload says, and the process that it runs in.
    name: str
    pid: int
    connection: socket.socket

    def answer(self) -> None:
        """Let the handler go on."""
        self.connection.close()


class Phone:
    """Where handlers call, from whatever thread or process; all that wait are answered in the end."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(LIMIT)
        self._calls: list[Call] = []

    def payload(self, name: str = "") -> Payload:
        """Return what a handler must know to call."""
        return {"port": self._socket.getsockname()[1], "name": name}

    def take(self) -> Call:
        """Wait for the next call."""
        connection, _ = self._socket.accept()
        connection.settimeout(LIMIT)
        with connection.makefile() as lines:
            name, pid = lines.readline().rstrip().rsplit(" ", 1)
        self._calls.append(Call(name, int(pid), connection))
        return self._calls[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for taken in self._calls:
            taken.answer()
        self._socket.close()


def call(payload: Payload) -> int:
    """Say that it runs, wait for the answer, and return the process."""
    with contextlib.suppress(ConnectionError):
        connection = socket.create_connection(("127.0.0.1", payload["port"]), timeout=LIMIT)
        with connection:
            connection.sendall(f"{payload['name']} {os.getpid()}\n".encode())
            connection.recv(1)
    return os.getpid()


@handler(timeout=1)
def stuck(payload: Payload) -> int:
    return call(payload)


def halfway(payload: Payload) -> Generator[float, None, int]:
    yield 0.5
    return call(payload)


@handler(timeout=0.2)
def for_ever(_payload: Payload) -> Generator[float]:
    while True:
        yield 0.5


def steady(_payload: Payload) -> Generator[float]:
    while True:
        yield 0.5


# What ends at once, well or badly.


class Mail(msgspec.Struct):
    to: str


class Unpicklable(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class NotUnpicklable(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def echo(payload: Payload) -> Payload:
    return payload


def say(payload: Payload) -> None:
    logging.getLogger("mine").warning("at work for %s", payload["whom"], extra={"place": "here"})


def where(_payload: Payload) -> int:
    return os.getpid()


def send(mail: Mail) -> str:
    return f"to {mail.to}"


def no_json(_payload: Payload) -> object:
    return object()


def too_large(_payload: Payload) -> str:
    return "x" * 2**20


def leave(_payload: Payload) -> None:
    sys.exit(3)


def die(_payload: Payload) -> None:
    os._exit(3)


def interrupt(_payload: Payload) -> None:
    raise KeyboardInterrupt


def unpicklable(_payload: Payload) -> None:
    raise Unpicklable("with a lock")


def not_unpicklable(_payload: Payload) -> None:
    raise NotUnpicklable("this", "that")


# What harms the actors.


def my_worker() -> pykka.ActorRef[Worker]:
    """Return the Worker in whose thread this is called."""
    (mine,) = [
        ref
        for ref in pykka.ActorRegistry.get_by_class(Worker)
        if cast(Any, ref.actor_inbox)._reader == threading.get_ident()
    ]
    return mine


def stop_my_worker(_payload: Payload) -> str:
    my_worker().stop(block=True)
    return "done"


def tell_my_worker_to_stop(_payload: Payload) -> str:
    my_worker().stop(block=False)
    return "done"


def stop_the_store(payload: Payload) -> None:
    if is_first(payload):
        for ref in pykka.ActorRegistry.get_by_class(JobStore):
            ref.stop()


def stop_all(payload: Payload) -> None:
    if is_first(payload):
        pykka.ActorRegistry.stop_all()


def is_first(payload: Payload) -> bool:
    """Tell whether no attempt has left its mark in the file yet; without a file each is the first."""
    if "once" not in payload:
        return True
    with contextlib.suppress(FileExistsError):
        Path(payload["once"]).touch(exist_ok=False)
        return True
    return False


handlers = {
    function.__name__: function
    for function in (
        call,
        die,
        echo,
        halfway,
        interrupt,
        leave,
        no_json,
        say,
        not_unpicklable,
        send,
        steady,
        stop_all,
        stop_my_worker,
        stop_the_store,
        tell_my_worker_to_stop,
        too_large,
        unpicklable,
        where,
    )
}
#: With those that only an executor can hold to a limit.
on_executor = handlers | {"stuck": stuck, "for_ever": for_ever}


# Executors.

spawn = multiprocessing.get_context("spawn")


def processes() -> Executor:
    return ProcessPoolExecutor(2, mp_context=spawn)


def one_process() -> Executor:
    return ProcessPoolExecutor(1, mp_context=spawn)


def threads() -> Executor:
    return ThreadPoolExecutor(4)


def one_thread() -> Executor:
    return ThreadPoolExecutor(1)


def none() -> None:
    return None


def refusing() -> Executor:
    raise OSError("no cluster")


no_function = 5
