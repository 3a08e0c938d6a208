"""Gofer's actors: a JobStore that keeps jobs and Workers that run them. Knows nothing of HTTP."""

from actors.errors import GoferError
from actors.handlers import handler
from actors.lifecycle import Job, Status
from actors.messages import Await, Cancel, Get, ListJobs, Retry, Submit
from actors.requests import CancelMany, RetryMany, SubmitAll, SubmitOnce
from actors.settings import Settings, from_environment
from actors.starting import own, start
from actors.system import System

__all__ = [
    "Await",
    "Cancel",
    "CancelMany",
    "Get",
    "GoferError",
    "Job",
    "ListJobs",
    "Retry",
    "RetryMany",
    "Settings",
    "Status",
    "Submit",
    "SubmitAll",
    "SubmitOnce",
    "System",
    "from_environment",
    "handler",
    "own",
    "start",
]
