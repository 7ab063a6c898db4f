"""Which address, and which key for it."""

import json
from pathlib import Path

import pytest

from trainmaster._errors import ConfigurationError
from trainmaster._settings import (
    DEFAULT_URL,
    Settings,
    is_loopback,
    load_settings,
    login_path,
    parse_url,
    write_login,
)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment with an admin key of this machine."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin.key").write_text("tml-admin\n")
    return {
        "TRAINMASTER_DATA_DIR": str(tmp_path / "data"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }


def test_on_one_machine_nothing_needs_to_be_said(env: dict[str, str]) -> None:
    assert load_settings(environ=env) == Settings(url=DEFAULT_URL, api_key="tml-admin")


@pytest.mark.parametrize(
    "url", ["http://trainer:8700", "https://10.0.0.7", "http://localhost.evil"]
)
def test_the_admin_key_is_for_this_machine_only(env: dict[str, str], url: str) -> None:
    assert load_settings(url, environ=env).api_key is None
    assert load_settings(environ={**env, "TRAINMASTER_URL": url}).api_key is None


def test_arguments_win_over_the_environment_and_that_over_the_login(env: dict[str, str]) -> None:
    write_login(login_path(env), Settings(url="https://stored", api_key="tml-stored"))
    given = {**env, "TRAINMASTER_URL": "https://given", "TRAINMASTER_API_KEY": "tml-given"}

    assert load_settings(environ=env) == Settings(url="https://stored", api_key="tml-stored")
    assert load_settings(environ=given) == Settings(url="https://given", api_key="tml-given")
    assert load_settings("https://a", "tml-a", environ=given).api_key == "tml-a"


def test_a_stored_key_goes_to_its_own_address_only(env: dict[str, str]) -> None:
    write_login(login_path(env), Settings(url="https://stored:8443", api_key="tml-stored"))

    assert load_settings("https://stored:8443/base", environ=env).api_key == "tml-stored"
    for other in ("https://stored", "http://stored:8443", "https://other:8443"):
        assert load_settings(other, environ=env).api_key is None


def test_a_login_is_replaced_whole_and_readable_by_its_owner_only(env: dict[str, str]) -> None:
    path = login_path(env)
    write_login(path, Settings(url="https://one", api_key="tml-1"))
    write_login(path, Settings(url="https://two", api_key="tml-2"))

    assert json.loads(path.read_text()) == {"url": "https://two", "api_key": "tml-2"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["config.json"]


@pytest.mark.parametrize("text", ["{", "[]", '{"url": 3}', '{"api_key": [1]}', "\xff"])
def test_a_broken_login_says_what_to_do(env: dict[str, str], text: str) -> None:
    path = login_path(env)
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(ConfigurationError, match="run `trainmaster login` again"):
        load_settings(environ=env)


@pytest.mark.parametrize(
    "text", ["", "trainer:8700", "ftp://x", "http://", "http://x:port", "//x", "http://x:99999"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not an address"):
        parse_url(text)


@pytest.mark.parametrize("text", ["http://u:p@x", "http://u@x", "http://x?key=1", "http://x#f"])
def test_an_address_holds_no_secrets(text: str) -> None:
    with pytest.raises(ConfigurationError, match="TRAINMASTER_API_KEY"):
        parse_url(text)


def test_addresses_have_one_form() -> None:
    assert parse_url(" http://trainer:8700/ ") == "http://trainer:8700"
    assert parse_url("https://trainer/base/") == "https://trainer/base"


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8700", True),
        ("http://127.8.9.10", True),
        ("http://[::1]:8700", True),
        ("http://localhost:8700", True),
        ("http://0.0.0.0:8700", False),
        ("http://127.0.0.1.evil.example", False),
        ("http://192.168.0.1", False),
    ],
)
def test_this_machine_is_known_by_its_address(url: str, here: bool) -> None:
    assert is_loopback(url) == here


@pytest.mark.parametrize("key", ["tml a", "tml-\n", "tml-ä", "tml-\r\nX-Evil: 1"])
def test_a_key_that_would_break_the_header_is_refused(env: dict[str, str], key: str) -> None:
    with pytest.raises(ConfigurationError, match="copy it again"):
        load_settings("https://x", key, environ=env)


def test_the_key_is_not_in_the_representation() -> None:
    assert "tml-secret" not in repr(Settings(url="https://x", api_key="tml-secret"))
