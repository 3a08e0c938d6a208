"""What the API says of itself: each operation is one entry of a table, and the document is made of these.

`operation.py` says what an entry is; `jobs.py` and `service.py` are the tables; `document.py` renders them.
"""

from collections.abc import Sequence
from typing import Final

from api.openapi import jobs, service
from api.openapi.document import document
from api.openapi.operation import Operation

__all__ = ["OPERATIONS", "Operation", "document"]

OPERATIONS: Final[Sequence[Operation]] = (*jobs.OPERATIONS, *service.OPERATIONS)
