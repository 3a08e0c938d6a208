"""What is where: a short answer at `/`, and the whole description at `/openapi.json`."""

from collections.abc import Sequence

import falcon.asgi
import msgspec

from api.openapi import Operation
from api.request import Request


class Fixed:
    """A path whose answer was rendered at startup."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def on_get(self, _req: Request, resp: falcon.asgi.Response) -> None:
        """Show it."""
        resp.data = self._body

    on_head = on_get


def index(operations: Sequence[Operation]) -> bytes:
    """Return what each method of each path does, as JSON."""
    paths: dict[str, dict[str, str]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = operation.summary
    return msgspec.json.encode(paths)
