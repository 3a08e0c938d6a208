"""Requests that come after a hand-over are answered by the next process, as if nothing had been."""

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from api import relay
from api.relay import Event, Relay, Send
from api.request import BODY_LIMIT

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LIMIT = 10.0


async def never(_scope: Event, _receive: object, _send: Send) -> None:
    raise AssertionError("it has handed over")


@asynccontextmanager
async def listening(handle: Handle) -> AsyncIterator[tuple[str, int]]:
    """Listen as the next process does."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()


def answering(answer: bytes, seen: list[bytes]) -> Handle:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(head := await reader.readuntil(b"\r\n\r\n"))
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        seen.append(await reader.readexactly(length))
        writer.write(answer)
        writer.close()

    return handle


async def request(
    app: Relay, method: str, target: str, *pieces: bytes, cut_off: bool = False, **headers: str
) -> list[Event]:
    """Send a request in so many pieces, and return what is answered."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }
    events = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    events += [{"type": "http.disconnect"} if cut_off else {"type": "http.request", "body": b""}]
    answered: list[Event] = []

    async def receive() -> Event:
        return events.pop(0)

    async def send(event: Event) -> None:
        answered.append(event)

    await app(scope, receive, send)
    return answered


def test_the_next_process_is_asked_and_its_answer_is_the_connections_last() -> None:
    async def run() -> None:
        seen: list[bytes] = []
        answer = b"HTTP/1.1 201 Created\r\nConnection: close\r\nLocation: /jobs/1\r\nDate: now\r\n\r\n{}"
        async with listening(answering(answer, seen)) as address:
            app = Relay(never, address)
            await app.hand_over(LIMIT)
            start, body = await request(
                app, "POST", "/jobs?a=%20b", b"one", b"two", host="here", expect="100-continue"
            )
        head, content = seen
        assert head.startswith(b"POST /jobs?a=%20b HTTP/1.0\r\nhost: here\r\n")
        assert b"expect" not in head
        assert content == b"onetwo"
        assert start["status"] == 201
        assert start["headers"] == [
            (b"location", b"/jobs/1"),
            (b"content-length", b"2"),
            (b"connection", b"close"),
        ]
        assert body["body"] == b"{}"

    asyncio.run(run())


def test_a_request_waits_until_the_next_process_listens_in_the_socket_of_both() -> None:
    async def run() -> None:
        seen: list[bytes] = []
        async with listening(answering(b"HTTP/1.1 200 OK\r\n\r\n[]", seen)) as address:
            app = Relay(never, address)
            await app.hand_over(LIMIT)
            asked = asyncio.ensure_future(request(app, "GET", "/jobs"))
            await app.finish(LIMIT)
            assert asked.done()
            assert (await asked)[0]["status"] == 200
        assert b"HEAD /health HTTP/1.0\r\n\r\n" in seen

    asyncio.run(run())


def test_a_request_that_was_begun_before_is_answered_here_and_waited_for() -> None:
    async def run() -> None:
        may_end = asyncio.Event()

        async def slowly(_scope: Event, _receive: object, send: Send) -> None:
            await may_end.wait()
            await send({"type": "http.response.start", "status": 200})

        app = Relay(slowly, "nowhere")
        asked = asyncio.ensure_future(request(app, "GET", "/jobs"))
        await asyncio.sleep(0)
        await app.hand_over(0.01)
        assert not asked.done()
        asyncio.get_running_loop().call_soon(may_end.set)
        await app.hand_over(LIMIT)
        assert (await asked)[0]["status"] == 200

    asyncio.run(run())


def test_the_wish_to_wait_is_not_passed_on_as_the_answer_has_to_come_soon() -> None:
    async def run() -> None:
        seen: list[bytes] = []
        async with listening(answering(b"HTTP/1.1 200 OK\r\n\r\n{}", seen)) as address:
            app = Relay(never, address)
            await app.hand_over(LIMIT)
            await request(app, "GET", "/jobs/1", prefer="wait=30", if_none_match='"x"')
        assert b"prefer" not in seen[0]
        assert b'if-none-match: "x"\r\n' in seen[0]

    asyncio.run(run())


def test_half_a_request_is_not_passed_on() -> None:
    async def run() -> None:
        app = Relay(never, "nowhere")
        await app.hand_over(LIMIT)
        assert await request(app, "POST", "/jobs", b"half", cut_off=True) == []

    asyncio.run(run())


def test_of_a_body_that_is_too_long_only_as_much_is_passed_on_as_shows_it() -> None:
    async def run() -> None:
        seen: list[bytes] = []
        async with listening(answering(b"HTTP/1.1 413 Too Large\r\n\r\n", seen)) as address:
            app = Relay(never, address)
            await app.hand_over(LIMIT)
            start, _ = await request(app, "POST", "/jobs", *[bytes(BODY_LIMIT // 2)] * 5)
        assert start["status"] == 413
        assert BODY_LIMIT < len(seen[1]) <= 2 * BODY_LIMIT

    asyncio.run(run())


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", None], ids=["none", "nonsense", "nobody"])
def test_if_the_next_process_does_not_answer_the_outcome_is_unknown(
    answer: bytes | None, tmp_path: Path
) -> None:
    async def run() -> Any:
        seen: list[bytes] = []
        async with listening(answering(answer or b"", seen)) as address:
            app = Relay(never, str(tmp_path / "nobody") if answer is None else address)
            await app.hand_over(LIMIT)
            return await request(app, "POST", "/jobs", b"{}")

    start, body = asyncio.run(run())
    assert start["status"] == 503
    assert b"retry-after" not in dict(start["headers"])
    assert "whether this was stored is unknown" in json.loads(body["body"])["detail"]


def test_an_answer_that_never_comes_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(over: asyncio.Event, _reader: object, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    async def run() -> list[Event]:
        over = asyncio.Event()
        async with listening(functools.partial(hang, over)) as address:
            app = Relay(never, address)
            await app.hand_over(LIMIT)
            await app.finish(0.01)
            answered = await request(app, "GET", "/jobs")
            over.set()
            return answered

    monkeypatch.setattr(relay, "LIMIT", 0.01)
    start, _ = asyncio.run(run())
    assert start["status"] == 503
