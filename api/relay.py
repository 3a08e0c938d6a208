"""The requests that reach a process which has handed its database over, on connections that it still has.

A client may keep a connection open, or have made one in the last moment, and knows nothing of a reload. A
request on it would have to be refused, or its connection be closed in front of it, which no client can tell
from a job that was stored. So it is asked again at the front door, the listening socket, where the next
process answers. That may not accept yet: then the connection waits in the socket's queue like any other.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import msgspec

from actors import log
from api.problems import MEDIA_PROBLEM, problem
from api.request import BODY_LIMIT, DISCARDED

#: Seconds that the next process has to answer: those in which it starts, and those of its own limit.
LIMIT: Final = 8.0
#: Headers that are about a connection and not about the request or the answer, or that each server adds.
OF_CONNECTION: Final = frozenset(
    {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade", b"expect"}
    | {b"content-length", b"date", b"server", b"x-request-id"}
)

#: Nor is a wish passed on to wait: the next process has to answer soon, and a wish it is (RFC 7240).
NOT_PASSED_ON: Final = OF_CONNECTION | {b"prefer"}

Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]
#: When the next process has been asked, and does not answer.
PROBLEM: Final = problem(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "the service is being replaced and did not answer; whether this was stored is unknown",
)
UNKNOWN: Final[Answer] = (
    PROBLEM.status,
    [(b"content-type", MEDIA_PROBLEM.encode())],
    msgspec.json.encode(PROBLEM),
)

Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Application = Callable[[Event, Receive, Send], Awaitable[None]]


class Underway:
    """The requests that are being answered in one way."""

    def __init__(self) -> None:
        self._count = 0
        self._is_over = asyncio.Event()

    def __enter__(self) -> None:
        self._count += 1
        self._is_over.clear()

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if not self._count:
            self._is_over.set()

    async def end(self, limit: float) -> None:
        """Wait until there are none, for at most `limit` seconds."""
        if self._count:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_over.wait(), limit)


class Relay:
    """An ASGI app: the given one, and after a hand-over whatever listens at the address now."""

    def __init__(self, app: Application, address: tuple[Any, ...] | str) -> None:
        self._app = app
        self._address = address
        self._has_handed_over = False
        self._answered_here = Underway()
        self._passed_on = Underway()

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if self._has_handed_over:
            with self._passed_on:
                await self._ask_again(scope, receive, send)
        else:
            with self._answered_here:
                await self._app(scope, receive, send)

    async def hand_over(self, limit: float) -> None:
        """Pass on what comes from now on; return when what came before is answered, or after the limit."""
        self._has_handed_over = True
        await self._answered_here.end(limit)

    async def finish(self, limit: float) -> None:
        """Return when the next process answers and all that was passed on is answered, or after the limit.

        If none answers, perhaps none has followed, and only the end of this one brings another.
        """
        with contextlib.suppress(OSError):  # A TimeoutError is one, too.
            async with asyncio.timeout(limit):
                await self._exchange(b"HEAD /health HTTP/1.0\r\n\r\n")
                await self._passed_on.end(limit)

    async def _ask_again(self, scope: Event, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        if body is None:
            return  # The client has gone.
        try:
            async with asyncio.timeout(LIMIT):
                answer = _parsed(await self._exchange(_request(scope, body)))
        except (OSError, ValueError):  # A TimeoutError is an OSError.
            answer = UNKNOWN
        await _send(send, *answer)

    async def _exchange(self, request: bytes) -> bytes:
        """Return the answer, of which the end is the end of its connection."""
        if isinstance(self._address, str):
            reader, writer = await asyncio.open_unix_connection(self._address)
        else:
            reader, writer = await asyncio.open_connection(*self._address[:2])
        try:
            writer.write(request)
            return await reader.read()
        finally:
            writer.close()


async def _body(receive: Receive) -> bytes | None:
    """Return the body, or as much of one that is too long as shows that; None if it was cut off."""
    body, size = bytearray(), 0
    while size <= BODY_LIMIT + DISCARDED:
        event = await receive()
        if event["type"] == "http.disconnect":
            return None
        piece = event.get("body", b"")
        size += len(piece)
        if len(body) <= BODY_LIMIT:
            body += piece
        if not event.get("more_body"):
            break
    return bytes(body)


def _request(scope: Event, body: bytes) -> bytes:
    """Return the request as HTTP/1.0, so that the answer ends with its connection and has no chunks."""
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    lines = [b"%s %s HTTP/1.0" % (scope["method"].encode(), target)]
    lines += [b"%s: %s" % header for header in scope["headers"] if header[0].lower() not in NOT_PASSED_ON]
    lines += [b"x-request-id: " + request_id for request_id in (log.REQUEST_ID.get(None),) if request_id]
    lines += [b"connection: close", b"content-length: %d" % len(body), b"", body]
    return b"\r\n".join(lines)


def _parsed(answer: bytes) -> Answer:
    """Take an answer apart. Raises ValueError."""
    head, end, content = answer.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    _, status, *_ = first.split()
    if not end:
        raise ValueError
    pairs = [line.partition(b":")[::2] for line in lines]
    headers = [(name.lower(), value.strip()) for name, value in pairs]
    return int(status), [header for header in headers if header[0] not in OF_CONNECTION], content


async def _send(send: Send, status: int, headers: Headers, content: bytes) -> None:
    headers = [*headers, (b"content-length", b"%d" % len(content)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
