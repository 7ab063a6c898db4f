"""No credential leaves with a log line."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from api.auth.tokens import new_api_key, new_node_credential, new_session_secret
from api.telemetry import REDACTED, configure_logging, redact, redact_text

SECRETS = [new_api_key(), new_session_secret(), new_node_credential(), "tma-AbCdEfGhIjKl_-mnop"]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "text",
    ["{}", "Bearer {}", "key={}", "('{}',)", "https://x/?key={}", "authorization: bearer {}"],
)
def test_credentials_are_seen_by_their_look(secret: str, text: str) -> None:
    assert secret not in redact_text(text.format(secret))


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("postgresql://user:hunter2@db/x", f"postgresql://{REDACTED}@db/x"),
        ("Bearer opaque", f"Bearer {REDACTED}"),
        ("the html-parser of job_01", "the html-parser of job_01"),
        ("http://127.0.0.1:8700/v1/jobs", "http://127.0.0.1:8700/v1/jobs"),
    ],
)
def test_passwords_go_and_the_rest_stays(text: str, clean: str) -> None:
    assert redact_text(text) == clean


@pytest.mark.parametrize(
    "name", ["authorization", "Cookie", "password", "db_password", "secret", "token", "api_key",
             "credential"],
)  # fmt: skip
def test_credentials_are_seen_by_their_name(name: str) -> None:
    event = redact(None, "info", {"event": "x", name: "opaque", "deep": {name: ["opaque"]}})

    assert "opaque" not in str(event)


def test_lines_of_ours_and_of_libraries_are_json_without_secrets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logging("json")
        try:
            raise ValueError(f"bad key {SECRETS[0]}")
        except ValueError:
            structlog.get_logger().exception("it failed", url=f"http://u:p@h/{SECRETS[1]}")
        logging.getLogger("library").warning("sent %s", SECRETS[2])
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()

    assert [line["event"] for line in lines] == ["it failed", f"sent {REDACTED}"]
    assert "ValueError" in lines[0]["exception"]
    assert not [secret for secret in SECRETS if secret in str(lines)]
    assert all(line["timestamp"].endswith("Z") for line in lines)
