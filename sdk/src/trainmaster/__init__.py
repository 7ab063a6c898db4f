"""Trainmaster's library: the client, and what runs inside a job.

Importing it costs nothing and needs nothing: each name is loaded when it is first used, because
jobs import this package in environments that have no HTTP library.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as in `typing`, whose import would cost more than all the rest
if TYPE_CHECKING:
    from typing import Any

    from trainmaster._errors import (
        APIConnectionError,
        APIError,
        APIResponseError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadRequestError,
        BundleError,
        ConfigurationError,
        ConflictError,
        DownloadError,
        IntegrityError,
        JobCancelled,
        JobFailed,
        NotFoundError,
        PermissionDeniedError,
        PreconditionFailedError,
        RateLimitError,
        ServerError,
        TooLargeError,
        TrainmasterError,
        UnprocessableError,
        WaitTimeout,
    )
    from trainmaster.client import Client
    from trainmaster.run import current_run

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "BundleError",
    "Client",
    "ConfigurationError",
    "ConflictError",
    "DownloadError",
    "IntegrityError",
    "JobCancelled",
    "JobFailed",
    "NotFoundError",
    "PermissionDeniedError",
    "PreconditionFailedError",
    "RateLimitError",
    "ServerError",
    "TooLargeError",
    "TrainmasterError",
    "UnprocessableError",
    "WaitTimeout",
    "current_run",
]

_HOMES = {"Client": "trainmaster.client", "current_run": "trainmaster.run"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _installed_version()
    elif name in __all__:
        home = importlib.import_module(_HOMES.get(name, "trainmaster._errors"))
        value = getattr(home, name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])


def _installed_version() -> str:
    from importlib import metadata  # noqa: PLC0415  costs 15 ms, which jobs need not pay

    try:
        return metadata.version("trainmaster")
    except metadata.PackageNotFoundError:  # used from a checkout through PYTHONPATH
        return "0+unknown"
