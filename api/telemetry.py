"""How the service speaks of itself: structured log lines without secrets, and Prometheus series.

Events are constant phrases with key-values. The redaction below is the last processor, so that no
line leaves with a credential in it, whoever wrote it.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REDACTED = "[redacted]"

# Our credentials by prefix, anything behind "Bearer", and passwords inside URLs.
_SECRETS = re.compile(
    r"\bt(?:ml|ms|mn|ma)-[A-Za-z0-9_-]{8,}|(?i:(?<=bearer )\S+)|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
)
_SECRET_NAMES = re.compile(r"(?i)authorization|cookie|password|secret|token|api_?key|credential")
_DURATION_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip


class ApiMetrics:
    """The series of one app; labels are route templates and statuses, so they are bounded."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "http_server_request_duration_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ("method", "route", "status"),
            buckets=_DURATION_BUCKETS,
            registry=self.registry,
        )
        self.active = Gauge(
            "http_server_active_requests", "Requests under way.", registry=self.registry
        )
        self.errors = Counter(
            "trainmaster_unexpected_errors",
            "Requests that met a mistake of ours.",
            registry=self.registry,
        )


def configure_logging(log_format: str = "auto", level: int = logging.INFO) -> None:
    """Send the log lines of this process to standard error.

    Args:
        log_format: `console`, `json`, or `auto`: console on a terminal, JSON elsewhere.
    """
    is_console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    render: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer() if is_console else structlog.processors.JSONRenderer()
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _drop_colours, *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Take credentials out of a log line, by name and by look."""
    return {name: _redacted(name, value) for name, value in event.items()}


def _drop_colours(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    event.pop("color_message", None)  # uvicorn's second copy of its message
    return event


def redact_text(text: str) -> str:
    """Return `text` without credentials."""
    return _SECRETS.sub(REDACTED, text)


def _redacted(name: str, value: Any) -> Any:
    if _SECRET_NAMES.search(str(name)):
        return REDACTED
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, dict):
        return {key: _redacted(key, part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted("", part) for part in value]
    return value
