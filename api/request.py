"""The request with its body, read whole within a limit."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import falcon
import falcon.asgi

#: Bytes that a body may have.
BODY_LIMIT: Final = 1024 * 1024
#: Bytes beyond the limit that are read and thrown away, so that a client that is still writing
#: finds the answer instead of a reset connection.
DISCARDED: Final = 8 * BODY_LIMIT

Event = dict[str, Any]


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

    async def json_body(self) -> bytes:
        """Return the body of a request that says it is JSON.

        Raises HTTPUnsupportedMediaType, HTTPContentTooLarge, or HTTPBadRequest for a body cut off.
        """
        if not self.is_json:
            raise falcon.HTTPUnsupportedMediaType(
                description="send the job as JSON, with Content-Type: application/json"
            )
        return await self.body()

    async def body(self) -> bytes:
        """Return the body. Raises HTTPContentTooLarge, or HTTPBadRequest for a body cut off."""
        body = bytearray()
        size = 0
        event = self._first or await self._next_event()
        while True:
            if event["type"] == "http.disconnect":
                raise falcon.HTTPBadRequest(description="the body was cut off")
            chunk = event.get("body", b"")
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
