"""Settings: what wins, and what a bad one says."""

from pathlib import Path

import pytest

from api.settings import BadSettings, load_settings


def test_the_environment_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.toml").write_text("lease_seconds = 90\npoll_seconds = 7\n")
    monkeypatch.setenv("TRAINMASTER_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("TRAINMASTER_LEASE_SECONDS", "70")

    settings = load_settings()

    assert (settings.lease_seconds, settings.poll_seconds) == (70, 7)


def test_lists_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINMASTER_INPUT_ROOTS", "/datasets, /scratch")

    assert load_settings().input_roots == ("/datasets", "/scratch")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BIND", "8700", "TRAINMASTER_BIND: must be an address and a port"),
        ("BIND", "127.0.0.1:99999", "TRAINMASTER_BIND: must be an address and a port"),
        ("LEASE_SECONDS", "nan", "TRAINMASTER_LEASE_SECONDS"),
        ("LEASE_SECONDS", "0", "greater than or equal to 1"),
        ("LEASE_SECONDS", "50", "fence_seconds must be less than lease_seconds"),
        ("HEARTBEAT_SECONDS", "55", "heartbeat_seconds must be less than fence_seconds"),
        ("DATADIR", "/x", "did you mean TRAINMASTER_DATA_DIR"),
        ("BOGUS", "1", "docs/settings.md lists them all"),
        ("CONFIG", "/no/such/file", "there is no file /no/such/file"),
    ],
)
def test_a_bad_setting_is_named_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"TRAINMASTER_{name}", value)

    with pytest.raises(BadSettings, match=message):
        load_settings()


@pytest.mark.parametrize("text", ["leese_seconds = 1", "lease_seconds = "])
def test_a_bad_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    monkeypatch.setenv("TRAINMASTER_CONFIG", str(tmp_path / "config.toml"))

    with pytest.raises(BadSettings):
        load_settings()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINMASTER_API_KEY", "tml-canary")

    assert "canary" not in repr(load_settings())
