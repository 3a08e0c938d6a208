"""The request with its body, read whole within a limit."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import falcon
import falcon.asgi
import msgspec

#: Bytes that a body may have.
BODY_LIMIT: Final = 1024 * 1024
#: Bytes beyond the limit that are read and thrown away, so that a client that is still writing
#: finds the answer instead of a reset connection.
DISCARDED: Final = 8 * BODY_LIMIT

#: The codings of a body that is as it is.
IDENTITY: Final = b"identity"
CHUNKED: Final = b"chunked"
PLAIN: Final = "send the body as it is"
#: Names of the one character set of JSON, and of the one that is a part of it.
UTF_8: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})

Event = dict[str, Any]

Query = TypeVar("Query", bound=msgspec.Struct)


class Request(falcon.asgi.Request):
    """Falcon's request does not tell a body that was cut off from a whole one: this one does."""

    def __init__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[Event]],
        first_event: Event | None = None,
        options: falcon.RequestOptions | None = None,
    ) -> None:
        super().__init__(scope, receive, first_event, options)
        self._next_event = receive
        self._first = first_event

    @property
    def is_json(self) -> bool:
        """Whether the request says that its body is JSON."""
        return (self.content_type or "").split(";")[0].strip().lower() == falcon.MEDIA_JSON

    def query(self, kind: type[Query], advice: str) -> Query:
        """Return the query as such a struct. Raises HTTPBadRequest, with the advice at its end."""
        try:
            found = msgspec.convert(self.params, kind, strict=False)
        except msgspec.ValidationError as error:
            raise falcon.HTTPBadRequest(description=f"{error}; {advice}") from None
        for name, value in self.params.items():
            if getattr(found, name) is None:  # Msgspec takes the word "null" for that.
                raise falcon.HTTPBadRequest(description=f"Invalid value {value!r} - at `$.{name}`; {advice}")
        return found

    async def json_body(self) -> bytes:
        """Return the body of a request that says it is JSON.

        Raises HTTPUnsupportedMediaType, HTTPContentTooLarge, HTTPNotImplemented for a transfer coding, or
        HTTPBadRequest for a body cut off.
        """
        if not self.is_json:
            raise falcon.HTTPUnsupportedMediaType(
                description="send the job as JSON, with Content-Type: application/json"
            )
        self._see_that_it_is_utf_8()
        self._see_that_it_is_plain()
        return await self.body()

    async def body(self) -> bytes:
        """Return the body. Raises HTTPContentTooLarge, or HTTPBadRequest for a body cut off."""
        body = bytearray()
        size = 0
        event = self._first or await self._next_event()
        while True:
            if event["type"] == "http.disconnect":
                raise falcon.HTTPBadRequest(description="the body was cut off")
            chunk = event.pop("body", b"")  # Falcon keeps the event for as long as the request waits.
            size += len(chunk)
            if size <= BODY_LIMIT:
                body += chunk
            if not event.get("more_body") or size > BODY_LIMIT + DISCARDED:
                break
            event = await self._next_event()
        if size > BODY_LIMIT:
            raise falcon.HTTPContentTooLarge(
                description=f"a body may have {BODY_LIMIT} bytes; put what is larger into a file or"
                " an object store and its address into the payload"
            )
        return bytes(body)

    def _see_that_it_is_plain(self) -> None:
        """Gunicorn passes on what is compressed, in either way that HTTP has, as it is."""
        headers = self._asgi_headers
        coding = headers.get(b"content-encoding", IDENTITY)
        if coding.lower() != IDENTITY:
            raise falcon.HTTPUnsupportedMediaType(
                description=f"Content-Encoding {coding.decode('latin-1')!r} is unknown here; {PLAIN}"
            )
        coding = headers.get(b"transfer-encoding", CHUNKED)
        if coding.lower() != CHUNKED:
            name = coding.decode("latin-1")
            raise falcon.HTTPNotImplemented(
                description=f"transfer coding {name!r} is unknown here; {PLAIN}, or chunked"
            )

    def _see_that_it_is_utf_8(self) -> None:
        if self.content_type == falcon.MEDIA_JSON:
            return
        _, parameters = falcon.parse_header(self.content_type or "")
        charset = parameters.get("charset", "utf-8")
        if charset.lower() not in UTF_8:
            raise falcon.HTTPUnsupportedMediaType(
                description=f"charset {charset!r} is unknown here; JSON is UTF-8 (RFC 8259), so send that"
            )
