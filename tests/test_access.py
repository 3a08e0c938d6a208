"""Who is let in: the Host, the token, and the page that a browser sends a request from."""

import base64
from collections.abc import Iterator

import falcon.testing
import httpx
import pytest

from actors import Settings, start
from actors.errors import SettingError
from api import create_app
from api.access import Access, is_loopback
from tests.service import refused, running

TOKEN = "s3cret-t0ken"
JSON = {"Content-Type": "application/json"}
JOB = '{"type": "email"}'


def basic(user_and_password: str) -> str:
    return "Basic " + base64.b64encode(user_and_password.encode()).decode()


@pytest.fixture(scope="module")
def local() -> Iterator[falcon.testing.TestClient]:
    with client(Settings(allowed_hosts="Jobs.example , other.test"), "127.0.0.1") as found:
        yield found


@pytest.fixture(scope="module")
def closed() -> Iterator[falcon.testing.TestClient]:
    with client(Settings(token=TOKEN), "0.0.0.0") as found:
        yield found


class client:  # noqa: N801 - reads as a function
    """An app that listens at this address."""

    def __init__(self, settings: Settings, host: str | None) -> None:
        self._access = Access.of(settings, host)

    def __enter__(self) -> falcon.testing.TestClient:
        self._system = start(Settings(simulated_seconds=0))
        return falcon.testing.TestClient(create_app(self._system, self._access))

    def __exit__(self, *_: object) -> None:
        self._system.stop()


# The Host.


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LOCALHOST:80",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:8080",
        "jobs.example",
        "other.test:1",
    ],
)
def test_on_loopback_names_of_it_and_allowed_ones_are_served(
    local: falcon.testing.TestClient, host: str
) -> None:
    assert local.simulate_get("/jobs", host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "::1",
        "",
        "0.0.0.0",
        "localhost:8080:1",
    ],
)
@pytest.mark.parametrize("path", ["/jobs", "/health", "/nothing"])
def test_on_loopback_any_other_name_is_misdirected(
    local: falcon.testing.TestClient, host: str, path: str
) -> None:
    answer = local.simulate_get(path, host=host)
    assert answer.status_code == 421
    assert answer.headers["content-type"] == "application/problem+json"
    assert "GOFER_ALLOWED_HOSTS" in answer.json["detail"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", None])
def test_elsewhere_any_name_is_served(host: str | None) -> None:
    with client(Settings(), host) as found:
        assert found.simulate_get("/jobs", host="jobs.example").status_code == 200


# The token.


@pytest.mark.parametrize(
    "given", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(f":{TOKEN}"), basic(f"any:{TOKEN}")]
)
def test_who_sends_the_token_is_let_in(closed: falcon.testing.TestClient, given: str) -> None:
    headers = {"Authorization": given}
    assert closed.simulate_get("/jobs", headers=headers).status_code == 200
    assert closed.simulate_post("/jobs", headers=headers | JSON, body=JOB).status_code == 201


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Token {TOKEN}",
        TOKEN,
        "Bearer \xe9",
        basic(TOKEN),
        basic(f"{TOKEN}:"),
        basic(f"a:{TOKEN}:"),
        "Basic ?",
        "Basic",
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/jobs"), ("POST", "/jobs"), ("DELETE", "/jobs/1"), ("GET", "/nothing")]
)
def test_who_does_not_is_asked_for_it_and_does_nothing(
    closed: falcon.testing.TestClient, given: str | None, method: str, path: str
) -> None:
    def jobs() -> object:
        return closed.simulate_get("/jobs", headers={"Authorization": f"Bearer {TOKEN}"}).json

    before = jobs()
    headers = JSON if given is None else JSON | {"Authorization": given}
    answer = closed.simulate_request(method, path, headers=headers, body=JOB)
    assert answer.status_code == 401
    assert "Bearer" in answer.headers["www-authenticate"]
    assert "Basic" in answer.headers["www-authenticate"]
    assert TOKEN not in answer.text
    assert jobs() == before


def test_the_health_of_a_service_needs_no_token(closed: falcon.testing.TestClient) -> None:
    assert closed.simulate_get("/health").json == {"status": "ok"}


# The page.


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 404),
        ({"Origin": "http://localhost:8080"}, 404),
        ({"Origin": "https://LOCALHOST:8080"}, 404),
        ({"Origin": "http://localhost:8081"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 404),
        ({"Sec-Fetch-Site": "none"}, 404),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://localhost:8080", "Sec-Fetch-Site": "cross-site"}, 403),
        (
            {"Origin": "http://evil.example", **JSON},
            404,
        ),  # For this a browser has asked, and was not allowed.
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/jobs/1/retry"), ("DELETE", "/jobs/1")])
def test_a_page_of_another_origin_can_change_nothing(
    local: falcon.testing.TestClient, headers: dict[str, str], status: int, method: str, path: str
) -> None:
    answer = local.simulate_request(method, path, host="localhost:8080", headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/jobs"), ("POST", "/jobs/1/retry"), ("DELETE", "/jobs/1")]
)
def test_a_body_that_is_no_json_changes_nothing(
    local: falcon.testing.TestClient, kind: str, method: str, path: str
) -> None:
    answer = local.simulate_request(method, path, host="localhost", headers={"Content-Type": kind}, body=JOB)
    assert answer.status_code == 415
    assert "application/json" in answer.json["detail"]
    assert local.simulate_get("/jobs", host="localhost").json == []


def test_no_answer_allows_another_origin_anything(local: falcon.testing.TestClient) -> None:
    headers = {
        "Origin": "http://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    answer = local.simulate_options("/jobs", host="localhost", headers=headers)
    assert not [name for name in answer.headers if name.startswith("access-control-")]


# The start.


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("jobs.example", False),
    ],
)
def test_it_is_known_which_addresses_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_an_address_that_others_reach_is_refused_without_a_token() -> None:
    ended = refused(HOST="0.0.0.0")
    assert ended.returncode != 0
    *_, told = ended.stderr.splitlines()
    assert told.startswith("gofer: at 0.0.0.0 ")
    assert "GOFER_TOKEN" in told
    assert "GOFER_OPEN=1" in told


@pytest.mark.parametrize(("settings", "status"), [({"GOFER_TOKEN": TOKEN}, 401), ({"GOFER_OPEN": "1"}, 200)])
def test_with_one_or_if_that_is_wanted_it_is_served(settings: dict[str, str], status: int) -> None:
    with running(HOST="0.0.0.0", **settings) as service:
        answer = httpx.get(f"http://127.0.0.1:{service.port}/jobs", headers={"Host": "jobs.example"})
        assert answer.status_code == status
        assert TOKEN not in service.log


def test_a_running_service_refuses_another_name() -> None:
    with running() as service:
        assert service.client.get("/jobs", headers={"Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize(
    "wrong", [{"token": ""}, {"token": "a b"}, {"allowed_hosts": "a b"}, {"allowed_hosts": ""}]
)
def test_a_setting_that_cannot_be_meant_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingError, match="it must be"):
        Settings(**wrong)  # type: ignore[arg-type]
