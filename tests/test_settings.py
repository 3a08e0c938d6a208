"""The settings, from an environment that is passed in."""

import pytest

from actors.errors import SettingError
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
