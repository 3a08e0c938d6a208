"""`Prefer: wait=N` is read as RFC 7240 says: what cannot be understood is ignored."""

import time

import falcon.testing
import pytest

from api import preferences

TAKEN = {
    "wait=10": 10,
    "wait=0": 0,
    "wait=60": 60,
    "wait=61": 60,
    "wait=0010": 10,
    "wait=" + "9" * 8000: 60,
    'wait="10"': 10,
    "WAIT = 10": 10,
    "  wait=10  ": 10,
    "wait=10; foo=bar": 10,
    "respond-async, wait=10": 10,
    "respond-async,wait=10,handling=lenient": 10,
    ", ,wait=10": 10,
    'foo="a, wait=5", wait=10': 10,
    r'foo="a\", wait=5", wait=10': 10,
    "foo=bar; wait=5, wait=10": 10,
    "wait=10, wait=20": 10,
}
IGNORED = [
    "",
    "wait",
    "wait=",
    'wait=""',
    "wait=-1",
    "wait=+1",
    "wait=1.5",
    "wait=1e1",
    "wait=ten",
    "wait=10 20",
    'wait="10',
    "wait=\xb2",
    "wait=x, wait=10",
    "waiting=10",
    "no-wait=10",
    "respond-async",
    'foo="wait=10',
    'foo=", wait=10',
    "foo=bar; wait=10",
]


def asked(header: str) -> int | None:
    return preferences.wait(falcon.testing.create_asgi_req(headers={"Prefer": header}))


@pytest.mark.parametrize(("header", "seconds"), TAKEN.items())
def test_a_preferred_wait_is_understood_and_bounded(header: str, seconds: int) -> None:
    assert asked(header) == seconds


@pytest.mark.parametrize("header", IGNORED)
def test_what_is_not_a_wait_is_ignored(header: str) -> None:
    assert asked(header) is None


@pytest.mark.parametrize("piece", ['"', r'"\"', '\\"', ",", '"a",', ";", "="])
def test_no_header_takes_long_to_read(piece: str) -> None:
    begun = time.process_time()
    assert asked(piece * 30_000) is None
    assert time.process_time() - begun < 1
