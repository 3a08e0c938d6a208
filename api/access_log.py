"""The access log: each request in one line, in the format of all others."""

import time

import falcon.asgi

from actors import log
from api.request import Request


class AccessLog:
    """Logs requests, without what is in their query or body."""

    def __init__(self) -> None:
        self._log = log.logger("HTTP")

    async def process_request(self, req: Request, _resp: falcon.asgi.Response) -> None:
        """Note when it came."""
        req.context.began = time.monotonic()

    async def process_response(
        self, req: Request, resp: falcon.asgi.Response, _resource: object, _req_succeeded: object
    ) -> None:
        """Log it as it is answered."""
        seconds = round(time.monotonic() - req.context.began, 6)
        self._log.info(
            "request", method=req.method, path=req.path, status=resp.status_code, duration_s=seconds
        )
