"""The settings, from an environment that is passed in."""

from pathlib import Path
from typing import Any

import pytest

from actors import Submit
from actors.errors import InvalidJob, SettingError
from actors.settings import Settings, from_environment


def test_without_any_variable_the_defaults_hold() -> None:
    assert from_environment({"PATH": "/bin"}) == Settings()


def test_each_variable_is_read_with_its_type() -> None:
    settings = from_environment(
        {"PORT": "0", "HOST": "::1", "GOFER_WORKERS": "4", "GOFER_SIMULATED_SECONDS": "0.5"}
    )
    assert (settings.port, settings.host) == (0, "::1")
    assert (settings.workers, settings.simulated_seconds) == (4, 0.5)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "abc", "a port, from 0 to 65535"),
        ("PORT", "65536", "a port, from 0 to 65535"),
        ("HOST", "", "a host name or an IP address"),
        ("GOFER_DATABASE", "", "the path of a file, or :memory:"),
        ("GOFER_WORKERS", "0", "a whole number of Workers, from 1 to 256"),
        ("GOFER_WORKERS", "1.5", "a whole number of Workers, from 1 to 256"),
        ("GOFER_CAPACITY", "-1", "a whole number of pending jobs, at least 1"),
        ("GOFER_SIMULATED_SECONDS", "nan", "a number of seconds, from 0 to 86400"),
        ("GOFER_SIMULATED_SECONDS", "inf", "a number of seconds, from 0 to 86400"),
        ("GOFER_SIMULATED_SECONDS", "-1", "a number of seconds, from 0 to 86400"),
        ("GOFER_KEEP_FINISHED", "all", "a whole number of finished jobs, or 0 to keep all"),
        ("GOFER_LOG", "loud", "DEBUG, INFO, WARNING or ERROR"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_that_says_what_is_allowed(
    name: str, value: str, allowed: str
) -> None:
    with pytest.raises(SettingError) as refusal:
        from_environment({name: value})
    assert str(refusal.value) == f"{name} is {value!r}; it must be {allowed}"


def test_a_misspelt_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(
        SettingError, match=r"GOFER_WORKER is not a setting; the settings are .*GOFER_WORKERS"
    ):
        from_environment({"GOFER_WORKER": "2"})


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ({"workers": 0}, "a whole number of Workers, from 1 to 256"),
        ({"workers": "4"}, "a whole number of Workers, from 1 to 256"),
        ({"workers": True}, "a whole number of Workers, from 1 to 256"),
        ({"on_crash": "ignore"}, "retry or fail"),
        ({"handlers": ["email"]}, "module:mapping, such as examples.words:handlers"),
        ({"database": None}, "the path of a file, or :memory:"),
        ({"grace": -1}, "a whole number of seconds, from 0 to 86400"),
        ({"simulated_seconds": float("nan")}, "a number of seconds, from 0 to 86400"),
        ({"keep_bytes": "256MB"}, "such as 1048576, 512KiB, 256MiB or 1GiB, or 0 for no limit"),
    ],
    ids=str,
)
def test_settings_made_in_python_are_checked_by_the_same_rules(given: dict[str, Any], allowed: str) -> None:
    with pytest.raises(SettingError) as refusal:
        Settings(**given)
    ((name, value),) = given.items()
    assert str(refusal.value).startswith(f"{name} is {value!r}; it must be ")
    assert str(refusal.value).endswith(allowed)


def test_a_path_and_a_size_with_a_unit_are_taken_in_python_too(tmp_path: Path) -> None:
    given: dict[str, Any] = {"database": tmp_path / "jobs.db", "keep_bytes": "1MiB", "keep_seconds": 5}
    settings = Settings(**given)
    assert (settings.database, settings.keep_bytes) == (str(tmp_path / "jobs.db"), 1024 * 1024)


@pytest.mark.parametrize("service", ["GOFER", "GOFER_API"])
def test_what_kubernetes_says_of_a_service_of_this_name_is_passed_over(service: str) -> None:
    told = {
        f"{service}_SERVICE_HOST": "10.0.0.1",
        f"{service}_SERVICE_PORT": "80",
        f"{service}_SERVICE_PORT_HTTP": "80",
        f"{service}_PORT": "tcp://10.0.0.1:80",
        f"{service}_PORT_80_TCP": "tcp://10.0.0.1:80",
        f"{service}_PORT_80_TCP_PROTO": "tcp",
    }
    assert from_environment(told) == Settings()


def test_a_port_under_the_wrong_name_is_no_service() -> None:
    with pytest.raises(SettingError, match=r"GOFER_PORT is not a setting; the settings are HOST, PORT, "):
        from_environment({"GOFER_PORT": "8080"})


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"max_retries": "a"}, "`max_retries` must be a whole number from 0 to 1000"),
        ({"max_retries": 1.5}, "`max_retries` must be a whole number from 0 to 1000"),
        ({"max_retries": True}, "`max_retries` must be a whole number from 0 to 1000"),
        ({"max_retries": 1001}, "`max_retries` must be a whole number from 0 to 1000"),
        ({"delay": "5"}, "`delay` must be from 0 to 315360000 seconds"),
        ({"delay": None}, "`delay` must be from 0 to 315360000 seconds"),
        ({"delay": float("nan")}, "`delay` must be from 0 to 315360000 seconds"),
    ],
    ids=str,
)
def test_a_submit_made_in_python_is_checked_as_one_over_http(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidJob) as refusal:
        Submit("email", **given)
    assert str(refusal.value) == reason
