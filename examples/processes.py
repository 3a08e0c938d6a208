"""Runs handlers in processes of their own: they use every core, and a time limit can end any of them."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def executor() -> ProcessPoolExecutor:
    """Return a pool of one process a core, started afresh: a fork would copy the service's threads' locks."""
    return ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"))
