"""Gofer's actors: a JobStore that keeps jobs and Workers that run them. Knows nothing of HTTP."""

from actors.errors import GoferError
from actors.lifecycle import Job, Status
from actors.messages import Await, Get, ListJobs, Submit
from actors.settings import Settings, from_environment
from actors.system import System, start

__all__ = [
    "Await",
    "Get",
    "GoferError",
    "Job",
    "ListJobs",
    "Settings",
    "Status",
    "Submit",
    "System",
    "from_environment",
    "start",
]
