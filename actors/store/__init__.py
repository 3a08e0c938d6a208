"""Where jobs are kept: the JobStore, and the database that it alone touches."""

from actors.store.backlog import Backlog
from actors.store.clock import Clock
from actors.store.database import Database
from actors.store.jobstore import JobStore
from actors.store.ledger import Ledger
from actors.store.ownership import Ownership
from actors.store.vitals import Vitals

__all__ = ["Backlog", "Clock", "Database", "JobStore", "Ledger", "Ownership", "Vitals"]
