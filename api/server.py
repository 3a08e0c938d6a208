"""What Gofer uses of gunicorn, which has no types of its own."""

import asyncio
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


class GunicornLog(Protocol):
    """Gunicorn's log."""

    def error(self, message: str, *values: object) -> None:
        """Log at ERROR."""

    def warning(self, message: str, *values: object) -> None:
        """Log at WARNING."""

    def debug(self, message: str, *values: object) -> None:
        """Log at DEBUG."""


class Master(Protocol):
    """What Gofer uses of gunicorn's master (its Arbiter)."""

    cfg: Config
    log: GunicornLog
    num_workers: int
    WORKERS: dict[int, Any]


class Worker(Protocol):
    """What Gofer uses of gunicorn's asgi worker."""

    cfg: Config
    log: GunicornLog
    #: The process id of the master.
    ppid: int
    loop: asyncio.AbstractEventLoop
    servers: list[asyncio.Server]
    sockets: list[Any]
    nr_conns: int
    asgi: Any

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
