"""What gunicorn's master checks before it listens: each refusal is one line, and nothing was started."""

import os
import socket
import sys
from typing import Final

from actors import GoferError, Settings
from api.access import is_loopback
from api.server import Config

#: Set by a master that replaces itself, and by systemd: the sockets are there already.
INHERITED: Final = ("GUNICORN_FD", "LISTEN_FDS")
#: Seconds of gunicorn's graceful_timeout that a stop has besides the grace.
RESERVE: Final = 5


def check(cfg: Config, settings: Settings) -> None:
    """Exit with one line if the service could not start, or not keep its word, with what was set."""
    check_options(cfg, settings)
    _check_listening(cfg)


def check_options(cfg: Config, settings: Settings) -> None:
    """As far as that can change at a reload."""
    refusals = {
        f"{cfg.workers} workers: the actors live in one process, so leave workers at 1;"
        " GOFER_WORKERS sets how many jobs run at once": cfg.workers != 1,
        f"worker class {cfg.worker_class_str}: leave it at asgi": cfg.worker_class_str != "asgi",
        "preload_app: actors do not survive the fork, so leave it off": cfg.preload_app,
        "max_requests: a restart would interrupt jobs, so leave it at 0": cfg.max_requests,
        "reuse_port: a second service would take half of the requests, so leave it off": cfg.reuse_port,
        f"graceful_timeout {cfg.graceful_timeout}: it is always {RESERVE} more than GOFER_GRACE, so set that"
        " instead": cfg.graceful_timeout != settings.grace + RESERVE,
    }
    for refusal, applies in refusals.items():
        if applies:
            sys.exit(f"gofer: cannot run with {refusal}")
    for host in (address[0] for address in cfg.address if isinstance(address, tuple)):
        if not (settings.token or settings.open or is_loopback(host)):
            sys.exit(
                f"gofer: at {host} anybody on other machines could submit and cancel jobs; set GOFER_TOKEN,"
                " which clients then have to send, or GOFER_OPEN=1 if that is wanted"
            )
    if settings.handlers is None:
        try:
            settings.simulation()
        except GoferError as error:
            sys.exit(f"gofer: {error}")


def _check_listening(cfg: Config) -> None:
    """See whether the service can listen: gunicorn would try for 5 s, and say it 12 times."""
    if any(name in os.environ for name in INHERITED):
        return
    for address in cfg.address:
        if isinstance(address, tuple):  # Not a socket in the file system.
            _try(*address)


def _try(host: str, port: int) -> None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        sys.exit(
            f"gofer: cannot listen on {host}, port {port}: {error.strerror}; set HOST and PORT to others"
        )
