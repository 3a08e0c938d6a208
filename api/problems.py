"""Every error as application/problem+json (RFC 9457), with a detail that says what to change."""

from http import HTTPStatus
from typing import Any, Final, NoReturn

import falcon
import falcon.asgi
import msgspec
import pykka

from actors.errors import (
    CapacityReached,
    Draining,
    IllegalMove,
    InvalidJob,
    JobNotFound,
    OutcomeInDoubt,
    StorageFailed,
)
from actors.messaging import OutcomeUnknown, Unanswered
from api.request import Request

#: What the actors refuse, as HTTP: the status, and after how many seconds to try again.
ANSWERS: Final[dict[type[Exception], tuple[HTTPStatus, int | None]]] = {
    InvalidJob: (HTTPStatus.BAD_REQUEST, None),
    JobNotFound: (HTTPStatus.NOT_FOUND, None),
    IllegalMove: (HTTPStatus.CONFLICT, None),
    CapacityReached: (HTTPStatus.TOO_MANY_REQUESTS, 1),
    Draining: (HTTPStatus.SERVICE_UNAVAILABLE, 5),
    # No Retry-After for these: a client that obeyed it might double its job.
    OutcomeInDoubt: (HTTPStatus.SERVICE_UNAVAILABLE, None),
    StorageFailed: (HTTPStatus.SERVICE_UNAVAILABLE, 1),
    pykka.ActorDeadError: (HTTPStatus.SERVICE_UNAVAILABLE, 5),
    OutcomeUnknown: (HTTPStatus.SERVICE_UNAVAILABLE, None),
    Unanswered: (HTTPStatus.SERVICE_UNAVAILABLE, 1),
}


def install(app: falcon.asgi.App[Request, falcon.asgi.Response]) -> None:
    """Make the app answer every error with a problem."""
    app.set_error_serializer(_render)
    for error in ANSWERS:
        app.add_error_handler(error, _raise_as_http)


async def _raise_as_http(
    _req: Request,
    _resp: falcon.asgi.Response | None,
    error: Exception,
    _params: dict[str, Any],
    **_websocket: object,
) -> NoReturn:
    status, retry_after = next(answer for kind, answer in ANSWERS.items() if isinstance(error, kind))
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    raise falcon.HTTPError(status, description=str(error), headers=headers)


def _render(req: Request, resp: falcon.asgi.Response, error: falcon.HTTPError) -> None:
    problem = {
        "title": HTTPStatus(error.status_code).phrase,
        "status": error.status_code,
        "detail": error.description or _default_detail(req, error),
    }
    resp.content_type = "application/problem+json"
    resp.data = msgspec.json.encode(problem)


def _default_detail(req: Request, error: falcon.HTTPError) -> str:
    if isinstance(error, falcon.HTTPMethodNotAllowed):
        allowed = dict(error.headers or ()).get("Allow", "")
        return f"{req.method} is not allowed here; allowed: {allowed}"
    if isinstance(error, falcon.HTTPNotFound):
        return f"there is nothing at {req.path}; jobs are at /jobs and /jobs/{{id}}"
    if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "internal error; see the service's log"
    return "the request cannot be understood"
