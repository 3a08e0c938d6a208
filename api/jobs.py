"""The jobs over HTTP."""

from typing import Annotated, Any
from urllib.parse import urlencode

import falcon
import falcon.asgi
import msgspec
import pykka
from msgspec import Meta, Raw
from msgspec.structs import replace

from actors import opaque
from actors.lifecycle import Job, Status
from actors.messages import Cancel, Get, ListJobs, Retry, Submit
from actors.requests import MOST_JOBS, SubmitAll, SubmitOnce
from actors.store import JobStore
from actors.validation import Validation
from api.asking import ask
from api.idempotency import key_of
from api.request import Request


class Submission(Submit, frozen=True, forbid_unknown_fields=True):
    """A Submit in a body: the payload is parsed with the rest of it, and kept as the bytes that came."""

    payload: Raw = Raw(b"{}")

    def _opaque(self) -> Raw:
        return opaque.parsed(self.payload)


Submissions = Annotated[tuple[Submission, ...], Meta(min_length=1, max_length=MOST_JOBS)]


class Jobs:
    """`/jobs`: submit one or many, list many."""

    def __init__(self, store: pykka.ActorRef[JobStore], validation: Validation) -> None:
        self._store = store
        self._validation = validation
        self._decoder = msgspec.json.Decoder[Submission | Submissions](Submission | Submissions)
        self._encoder = msgspec.json.Encoder()

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Submit a job, or an array of jobs; under an Idempotency-Key only once."""
        key, body = key_of(req), await req.json_body()
        message = self._submission(body)
        if isinstance(message, SubmitAll):
            await self._validation.check_all_aside(message)
        else:
            await self._validation.check_aside(message)
        jobs: Job | list[Job]
        if key is None:
            jobs = await ask(self._store, message)
        else:
            jobs, is_replayed = await ask(self._store, SubmitOnce(key, message, body))
            if is_replayed:
                resp.set_header("Idempotent-Replayed", "true")
        resp.status = falcon.HTTP_201
        if isinstance(jobs, Job):
            resp.location = f"/jobs/{jobs.id}"
        resp.data = self._encoder.encode(jobs)

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """List jobs, with a Link to the next page if there is one (RFC 8288)."""
        query = self._query(req.params)
        one_more = replace(query, limit=query.limit + 1)
        jobs: list[Job] = await ask(self._store, one_more)
        page = jobs[: query.limit]
        if len(jobs) > len(page):
            resp.append_link(f"/jobs?{urlencode({**req.params, 'after': page[-1].id})}", "next")
        resp.data = self._encoder.encode(page)

    def _submission(self, body: bytes) -> Submit | SubmitAll:
        try:
            found = self._decoder.decode(body)
        except msgspec.DecodeError as error:
            raise falcon.HTTPBadRequest(description=f"not a job: {opaque.explained(body, error)}") from None
        except UnicodeDecodeError as error:
            raise falcon.HTTPBadRequest(description=f"not UTF-8: {error}") from None
        except RecursionError:
            raise falcon.HTTPBadRequest(description=f"not a job: {opaque.TOO_DEEP}") from None
        return found if isinstance(found, Submit) else SubmitAll(found)

    def _query(self, parameters: Any) -> ListJobs:
        try:
            return msgspec.convert(parameters, ListJobs, strict=False)
        except msgspec.ValidationError as error:
            raise falcon.HTTPBadRequest(
                description=f"{error}; a list takes `limit` (1 to 1000), `after` (a job id),"
                f" `order` (oldest or newest), `type` and `status` ({', '.join(Status)})"
            ) from None


class OneJob:
    """`/jobs/{id}`: show one, cancel it."""

    def __init__(self, store: pykka.ActorRef[JobStore]) -> None:
        self._store = store
        #: The job that was shown last, and how: many clients poll one job.
        self._shown: Job | None = None
        self._body = b""

    async def on_get(self, _req: Request, resp: falcon.asgi.Response, job_id: str) -> None:
        """Show a job with its payload and result."""
        job: Job = await ask(self._store, Get(job_id))
        if job is not self._shown:
            self._shown, self._body = job, msgspec.json.encode(job)
        resp.data = self._body

    async def on_delete(self, _req: Request, resp: falcon.asgi.Response, job_id: str) -> None:
        """Cancel a job; 202 if that has to wait for its handler's next yield."""
        job: Job = await ask(self._store, Cancel(job_id))
        resp.status = falcon.HTTP_202 if job.status is Status.PROCESSING else falcon.HTTP_200
        resp.data = msgspec.json.encode(job)


class Retries:
    """`/jobs/{id}/retry`: run a failed or cancelled job again."""

    def __init__(self, store: pykka.ActorRef[JobStore]) -> None:
        self._store = store

    async def on_post(self, _req: Request, resp: falcon.asgi.Response, job_id: str) -> None:
        """Make the job pending again."""
        resp.data = msgspec.json.encode(await ask(self._store, Retry(job_id)))
