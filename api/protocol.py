"""How the service speaks HTTP, as far as that differs from gunicorn's own way.

- Each request has an id, a client's or a new one, which its answer and the log's lines about it bear.
- An answer does not say which server it comes from; and that it is not to be kept, unless it says otherwise.
- What cannot be parsed is answered with a problem, as every other error is.
- An upgrade to a WebSocket is ignored (RFC 9110, section 7.8), because nothing here speaks that.

All of this is done where gunicorn has the bytes in its hands, because there it costs next to nothing.
"""

import itertools
import re
import secrets
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

import msgspec
from gunicorn.asgi import protocol

from actors import log
from api.problems import MEDIA_PROBLEM, problem

Headers = list[tuple[bytes, bytes]]

REQUEST_ID: Final = b"x-request-id"
#: What a client's id has to look like to be taken.
VISIBLE: Final = re.compile(rb"[!-~]{1,128}")
#: The line that gunicorn adds, which gives its place to ours.
SERVER: Final = b"\r\nServer: gunicorn/asgi\r\n"
#: As falcon and the relay write it.
CACHE_CONTROL: Final = b"\r\ncache-control: "
NOT_KEPT: Final = b"\r\ncache-control: no-store\r\nx-request-id: %b\r\n"
AS_IT_SAYS: Final = b"\r\nx-request-id: %b\r\n"

#: What is said of what the parser refuses, with its own words for it.
DETAILS: Final = {
    HTTPStatus.BAD_REQUEST: "this is not HTTP as RFC 9112 has it: {}",
    HTTPStatus.REQUEST_URI_TOO_LONG: "{}; with its method and address it may have 4094 bytes",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "{}; there may be 100 headers, of 8190 bytes each",
    HTTPStatus.NOT_IMPLEMENTED: "transfer coding {!r} is unknown here; send the body as it is, or chunked",
    HTTPStatus.INTERNAL_SERVER_ERROR: "internal error; see the service's log",
}


class RequestIds:
    """The ids of one process's requests: no other process has the same, as far as chance can see to it."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(4).encode()
        self._numbers = itertools.count(1)

    def of(self, headers: Headers) -> bytes:
        """Return the id that these headers give, if it can be taken, else a new one."""
        for name, value in headers:
            if name == REQUEST_ID:
                return value if VISIBLE.fullmatch(value) else self.new()
        return self.new()

    def new(self) -> bytes:
        """Return a new id."""
        return b"%b-%x" % (self._prefix, next(self._numbers))


class Protocol(protocol.ASGIProtocol):  # type: ignore[misc]
    """One connection."""

    _response_buffer: bytes

    def __init__(self, worker: Any, ids: RequestIds) -> None:
        super().__init__(worker)
        self._ids = ids

    def _build_http_scope(self, *request: Any) -> dict[str, Any]:
        scope: dict[str, Any] = super()._build_http_scope(*request)
        log.REQUEST_ID.set(self._ids.of(scope["headers"]))
        return scope

    def _send_response_start(self, status: int, headers: Headers, request: Any, close: bool = False) -> None:  # noqa: FBT001, FBT002
        super()._send_response_start(status, headers, request, close)
        head: bytes = self._response_buffer
        ours = AS_IT_SAYS if CACHE_CONTROL in head else NOT_KEPT
        self._response_buffer = head.replace(SERVER, ours % log.REQUEST_ID.get(), 1)

    def _send_error_response(
        self, status: int, message: str, extra_headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        kind = HTTPStatus(status)
        body = msgspec.json.encode(problem(kind, DETAILS.get(kind, "{}").format(message)))
        head = [
            f"HTTP/1.1 {status} {kind.phrase}",
            f"content-type: {MEDIA_PROBLEM}",
            f"content-length: {len(body)}",
            "cache-control: no-store",
            f"x-request-id: {self._ids.new().decode()}",
            *(f"{name}: {value}" for name, value in extra_headers),
            f"date: {formatdate(usegmt=True)}",
            "connection: close",
        ]
        self._safe_write("\r\n".join([*head, "", ""]).encode("latin-1") + body)

    def _is_websocket_upgrade(self, _request: Any) -> bool:
        return False
