"""What Gofer uses of gunicorn, which has no types of its own."""

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol


class Config(Protocol):
    """What Gofer reads of gunicorn's settings."""

    workers: int
    worker_class_str: str
    preload_app: bool
    max_requests: int
    reuse_port: bool
    graceful_timeout: int
    backlog: int
    #: A host and a port, the path of a socket, or a descriptor, each.
    address: list[tuple[str, int] | str | int]

    def on_reload(self, master: Any) -> None:
        """Call the hook of the configuration file."""


class GunicornLog(Protocol):
    """Gunicorn's log."""

    def error(self, message: str, *values: object) -> None:
        """Log at ERROR."""

    def warning(self, message: str, *values: object) -> None:
        """Log at WARNING."""

    def debug(self, message: str, *values: object) -> None:
        """Log at DEBUG."""

    def reopen_files(self) -> None:
        """Open its files again, which may have been moved."""


class App(Protocol):
    """What gunicorn runs, with its configuration."""

    cfg: Config

    def reload(self) -> None:
        """Load the configuration again. Raises SystemExit."""


class Master(Protocol):
    """What Gofer uses of gunicorn's master (its Arbiter)."""

    app: App
    cfg: Config
    log: GunicornLog
    num_workers: int
    #: By process id, those that have not ended.
    WORKERS: dict[int, Any]
    SIG_QUEUE: SimpleQueue[int]
    #: Called in its loop when the signal has come.
    handle_hup: Callable[[], None]
    handle_ttin: Callable[[], None]
    handle_ttou: Callable[[], None]
    #: Called about once a second: ends what has given no sign of life for too long.
    murder_workers: Callable[[], None]

    def setup(self, app: App) -> None:
        """Take over the configuration of the app."""


class Worker(Protocol):
    """What Gofer uses of gunicorn's asgi worker."""

    cfg: Config
    log: GunicornLog
    #: The process id of the master.
    ppid: int
    #: Process ids of the workers that were there when it was made: at a reload, whom it is to follow.
    predecessors: list[int]
    loop: asyncio.AbstractEventLoop
    servers: list[asyncio.Server]
    sockets: list[Any]
    nr_conns: int
    asgi: Any

    def notify(self) -> None:
        """Show the master that it is alive."""

    def handle_exit_signal(self) -> None:
        """End after the connections' next answers."""

    def handle_quit_signal(self) -> None:
        """End now."""


def url(address: tuple[Any, ...] | str) -> str:
    """Return how a socket with this address is reached."""
    if isinstance(address, str):
        return f"unix:{address}"
    host, port, *_ = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
