"""How one job is shown, and the tag by which a client asks whether it has changed (RFC 9110, section 13).

The tag is a hash of all that a job shows but for its payload, which never changes, and its result, which
comes and goes with its status and attempts. So it needs neither of the two, which may be large. It is a weak
one, as another version of Gofer may write the same job with other bytes.
"""

from hashlib import blake2b
from typing import Final

import falcon
import falcon.asgi
import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from actors.lifecycle import Job

#: Bytes of a tag: enough that no two states of one job share it.
TAG_SIZE: Final = 8


class Rendering:
    """The job that was shown last, its tag and its bytes: many clients poll one job, or wait for it."""

    def __init__(self) -> None:
        self._job: Job | None = None
        self._tag = ""
        self._body: bytes | None = None

    def show(self, job: Job, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Answer with the job; with 304 if the client has it as it is."""
        if self.is_known(job, req, resp):
            return
        if self._body is None:
            self._body = msgspec.json.encode(job)
        resp.data = self._body

    def is_known(self, job: Job, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> bool:
        """Tell whether the client has the job as it is, and then answer so; the job may be a summary."""
        if job is not self._job:
            self._job, self._tag, self._body = job, tag(job), None
        resp.set_header("ETag", f'W/"{self._tag}"')
        resp.set_header("Cache-Control", "no-cache")  # It may be kept, but is to be asked for each time.
        known = req.if_none_match or ()
        is_known = self._tag in known or "*" in known
        if is_known:
            resp.status = falcon.HTTP_304
        return is_known


def tag(job: Job) -> str:
    """Return what changes whenever the shown job does."""
    small = msgspec.json.encode(replace(job, raw_payload=UNSET, raw_result=UNSET))
    return blake2b(small, digest_size=TAG_SIZE).hexdigest()
