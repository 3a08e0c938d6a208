"""Gofer's actors: a JobStore that keeps jobs and Workers that run them. Knows nothing of HTTP."""

from actors.errors import GoferError
from actors.handlers import handler
from actors.lifecycle import Job, Status
from actors.messages import Await, Cancel, Get, ListJobs, Retry, Submit
from actors.settings import Settings, from_environment
from actors.starting import own, start
from actors.system import System

__all__ = [
    "Await",
    "Cancel",
    "Get",
    "GoferError",
    "Job",
    "ListJobs",
    "Retry",
    "Settings",
    "Status",
    "Submit",
    "System",
    "from_environment",
    "handler",
    "own",
    "start",
]
