"""Where the service is and which key opens it: the client's one reader of the environment.

Order for the address: argument, TRAINMASTER_URL, `trainmaster login`, http://127.0.0.1:8700.
Order for the key: argument, TRAINMASTER_API_KEY, the login stored for exactly this address, and,
for an address of this machine only, the admin key in the service's data directory.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from trainmaster._errors import ConfigurationError

DEFAULT_URL = "http://127.0.0.1:8700"
_DEFAULT_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int]
"""Scheme, host and port: what must be equal before a key is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """An address without a trailing slash, and the key for it (None: ask without one)."""

    url: str
    api_key: str | None = field(default=None, repr=False)

    @property
    def origin(self) -> Origin:
        """The only place this key is ever sent to."""
        return origin_of(self.url)

    @property
    def is_loopback(self) -> bool:
        """Whether the service is on this machine."""
        return is_loopback(self.url)


def load_settings(
    url: str | None = None,
    api_key: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings in force.

    Raises:
        ConfigurationError: the address is no http(s) URL, or the key is no key.
    """
    env = os.environ if environ is None else environ
    stored = read_login(login_path(env))
    chosen_url = parse_url(url or env.get("TRAINMASTER_URL") or stored.url or DEFAULT_URL)
    key = api_key or env.get("TRAINMASTER_API_KEY") or None
    if key is None and stored.url and origin_of(stored.url) == origin_of(chosen_url):
        key = stored.api_key
    if key is None and is_loopback(chosen_url):
        key = _read_admin_key(_data_dir(env))
    return Settings(url=chosen_url, api_key=_checked_key(key))


def login_path(environ: Mapping[str, str] | None = None) -> Path:
    """Return the file that `trainmaster login` writes."""
    env = os.environ if environ is None else environ
    base = env.get("XDG_CONFIG_HOME") or ""
    folder = Path(base) if base.startswith("/") else Path.home() / ".config"
    return folder / "trainmaster" / "config.json"


def read_login(path: Path) -> Settings:
    """Return the stored login, or one without address and key when there is none.

    Raises:
        ConfigurationError: the file is there and cannot be understood.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        url, key = document.get("url") or "", document.get("api_key")
        if not isinstance(url, str) or not isinstance(key, str | None):
            raise TypeError("url and api_key must be text")
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return Settings(url="")
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error}): run `trainmaster login` again, or delete it"
        ) from error
    return Settings(url=url, api_key=key)


def write_login(path: Path, settings: Settings) -> None:
    """Store a login, readable by this user only; it replaces the one before in one step."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"url": settings.url, "api_key": settings.api_key}, file, indent=2)
        file.write("\n")
    draft.replace(path)


def parse_url(text: str) -> str:
    """Return the address in the one form used inside.

    Raises:
        ConfigurationError: not an http(s) URL with a host, or one that carries a password or query.
    """
    parts = _split(text)
    if parts is None or parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ConfigurationError(
            f"{text!r} is not an address: give one like {DEFAULT_URL} (TRAINMASTER_URL or --url)"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError(
            "the address must have no user, password, query or fragment: "
            "the key goes into TRAINMASTER_API_KEY"
        )
    return parts._replace(path=parts.path.rstrip("/")).geturl()


def origin_of(url: str) -> Origin:
    """Return scheme, host and port of an http(s) address."""
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    return parts.scheme, (parts.hostname or "").lower(), port


def is_loopback(url: str) -> bool:
    """Whether the address can only be this machine: 127.0.0.0/8, ::1 or localhost."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text.strip())
        _ = parts.port  # raises for ports that are none
    except ValueError:
        return None
    return parts


def _data_dir(env: Mapping[str, str]) -> Path:
    return Path(env.get("TRAINMASTER_DATA_DIR") or "~/.trainmaster").expanduser()


def _read_admin_key(data_dir: Path) -> str | None:
    try:
        return (data_dir / "admin.key").read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None  # another user's service: the answer 401 says what to do


def _checked_key(key: str | None) -> str | None:
    if key is not None and not all("!" <= character <= "~" for character in key):
        raise ConfigurationError(
            "the API key has spaces or characters that no key has: copy it again"
        )
    return key
