"""What is checked of every request that has found its path, as the table of operations says it.

A method that the path does not have, a query parameter that it does not know and an id that is empty are each
refused in the same way everywhere; and OPTIONS is answered.
"""

from collections.abc import Sequence
from typing import Any

import falcon
import falcon.asgi

from api.openapi import Operation
from api.request import Request


class Addresses:
    """The methods and query parameters of all paths."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._parameters: dict[tuple[str | None, str], Sequence[str]] = {
            (operation.path, method): operation.parameters
            for operation in operations
            for method in ((operation.method, "HEAD") if operation.method == "GET" else (operation.method,))
        }

    async def process_resource(
        self, req: Request, resp: falcon.asgi.Response, _resource: object, ids: dict[str, Any]
    ) -> None:
        """Check it, before its responder is called."""
        if ids and "" in ids.values():
            raise falcon.HTTPRouteNotFound
        parameters = self._parameters.get((req.uri_template, req.method))
        if req.method == "OPTIONS":
            resp.status = falcon.HTTP_204
            resp.set_header("Allow", ", ".join(self._methods(req.uri_template)))
            resp.complete = True
        elif parameters is None:
            raise falcon.HTTPMethodNotAllowed(self._methods(req.uri_template))
        elif req.query_string:
            _check(req, parameters)

    def _methods(self, template: str | None) -> list[str]:
        return sorted({method for path, method in self._parameters if path == template} | {"OPTIONS"})


def _check(req: Request, parameters: Sequence[str]) -> None:
    for name, value in req.params.items():
        if name not in parameters:
            known = ", ".join(f"`{parameter}`" for parameter in parameters)
            raise falcon.HTTPBadRequest(
                description=f"there is no query parameter `{name}` here; "
                + (f"there are: {known}" if known else "there is none at all")
            )
        if isinstance(value, list):
            raise falcon.HTTPBadRequest(
                description=f"the query parameter `{name}` is given twice; give it once"
            )
