"""How long a client prefers to wait for a job: `Prefer: wait=N` (RFC 7240, section 4.3).

A preference is a wish, so what cannot be understood is ignored, and the answer says what was applied. Of a
preference that is named more than once the first counts.
"""

import re
from typing import Final

import falcon.asgi

#: Seconds that a request waits at most, whatever is preferred.
LONGEST_WAIT: Final = 60
#: One preference of the list. A quoted string may hold commas; one that does not end takes all that is left.
PREFERENCE: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*(?:"|\\?$))+')
#: Delta-seconds, perhaps as a quoted string.
SECONDS: Final = re.compile(r'("?)([0-9]+)\1')


def wait(req: falcon.asgi.Request) -> int | None:
    """Return for how many seconds the client prefers to wait; None if it does not say."""
    header = req.get_header("Prefer")
    if header is None:
        return None
    for preference in PREFERENCE.findall(header):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            return _seconds(value.strip())
    return None


def _seconds(value: str) -> int | None:
    found = SECONDS.fullmatch(value)
    if found is None:
        return None
    digits = found[2].lstrip("0") or "0"
    return LONGEST_WAIT if len(digits) > len(str(LONGEST_WAIT)) else min(int(digits), LONGEST_WAIT)


def applied(seconds: int) -> str:
    """Return what `Preference-Applied` says of the wait."""
    return f"wait={seconds}"
