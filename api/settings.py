"""All settings of the service: the one reader of the environment in the control plane.

Variables start with `TRAINMASTER_`; a TOML file named by `TRAINMASTER_CONFIG` may hold the same
names in lower case. Unknown names in the file are refused. `docs/settings.md` lists them all.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Annotated

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

_PREFIX = "TRAINMASTER_"
# Read elsewhere: by this module itself, by the set-up of the job environment, inside jobs.
_OTHERS = frozenset({"TRAINMASTER_CONFIG", "TRAINMASTER_ACCELERATOR", "TRAINMASTER_RUN"})

CHECKOUT = Path(__file__).resolve().parent.parent

Seconds = Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)]


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """What an operator may set; every field says what it is, in which unit."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", frozen=True)

    data_dir: Path = Field(
        default=Path("~/.trainmaster"),
        description="Folder of the database, keys, files and checkpoints.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="SQLAlchemy URL; SQLite in the data folder unless set. "
        "PostgreSQL: `postgresql+psycopg://…`.",
    )
    bind: str = Field(default="127.0.0.1:8700", description="Address and port to listen on.")
    behind_proxy: bool = Field(
        default=False,
        description="Set it when a proxy with TLS stands in front: only then may `BIND` be other "
        "than loopback.",
    )
    allowed_hosts: Words = Field(
        default=(), description="Host names that requests may name besides loopback and `BIND`."
    )
    input_roots: Words = Field(
        default=(), description="Directories that `dir:` inputs may name, by comma."
    )
    job_python: Path = Field(
        default=CHECKOUT / ".venv-job" / "bin" / "python",
        description="Interpreter of the default job environment.",
    )
    url: str | None = Field(
        default=None,
        description="Where a node daemon finds the API; this machine's own unless set.",
    )
    api_key: SecretStr | None = Field(
        default=None, description="Admin key with which a node daemon joins for the first time."
    )
    node_name: str | None = Field(
        default=None, description="Name of this node; the host name unless set."
    )
    node_address: str | None = Field(
        default=None, description="Where other nodes reach this one; found out unless set."
    )
    node_pool: str = Field(default="default", description="Pool that this node joins.")
    node_cpus: float | None = Field(
        default=None,
        gt=0,
        description="CPUs that jobs may take on this node; all of them unless set.",
    )
    heartbeat_seconds: Seconds = Field(
        default=5, description="Between two signs of life of a node."
    )
    lease_seconds: Seconds = Field(
        default=60, description="Silence after which an attempt is lost."
    )
    fence_seconds: Seconds = Field(
        default=50,
        description="Silence after which a supervisor kills its own ranks; less than the lease.",
    )
    poll_seconds: Seconds = Field(
        default=4, description="Longest time between two looks of the scheduler."
    )
    leader_seconds: Seconds = Field(
        default=10, description="How long a silent scheduler keeps the lead."
    )
    grace_seconds: Seconds = Field(
        default=30, description="From the request to stop to the kill, unless a spec says so."
    )
    attempt_token_seconds: Seconds = Field(default=600, description="Life of a supervisor's token.")
    log_format: str = Field(
        default="auto", pattern="^(auto|console|json)$", description="`auto`, `console` or `json`."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments beat the environment, the environment beats the file."""
        sources: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
        path = os.environ.get("TRAINMASTER_CONFIG")
        if path:
            sources.append(TomlConfigSettingsSource(settings_cls, toml_file=path))
        return tuple(sources)

    @field_validator("bind")
    @classmethod
    def _check_bind(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65_535:
            raise ValueError("must be an address and a port, such as 127.0.0.1:8700")
        return value

    @model_validator(mode="after")
    def _check_timers(self) -> Settings:
        if self.fence_seconds >= self.lease_seconds:
            raise ValueError(
                "fence_seconds must be less than lease_seconds: a supervisor has to be gone before "
                "its job is given to another"
            )
        if self.heartbeat_seconds >= self.fence_seconds:
            raise ValueError("heartbeat_seconds must be less than fence_seconds")
        return self

    @property
    def data_folder(self) -> Path:
        """The data folder, absolute."""
        return self.data_dir.expanduser().resolve()

    @property
    def sqlalchemy_url(self) -> str:
        """Where the rows live."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_folder / 'trainmaster.db'}"

    @property
    def bind_address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        host, _, port = self.bind.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def service_url(self) -> str:
        """Where this machine's own clients find the API."""
        if self.url is not None:
            return self.url
        host, port = self.bind_address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class BadSettings(Exception):
    """The settings cannot be meant; the message names each one and the way out."""


def load_settings() -> Settings:
    """Return the settings of this process.

    Raises:
        BadSettings: a value is impossible, or a name is unknown.
    """
    problems = [_explain_unknown(name) for name in os.environ if _is_unknown(name)]
    config = os.environ.get("TRAINMASTER_CONFIG")
    if config and not Path(config).is_file():
        problems.append(f"TRAINMASTER_CONFIG: there is no file {config}")
    if problems:
        raise BadSettings("\n".join(problems))
    try:
        return Settings()
    except ValidationError as error:
        raise BadSettings("\n".join(_explain(each) for each in error.errors())) from error
    except (OSError, TOMLDecodeError) as error:
        raise BadSettings(f"the file that TRAINMASTER_CONFIG names: {error}") from error


def _is_unknown(name: str) -> bool:
    if not name.startswith(_PREFIX) or name.startswith(f"{_PREFIX}TEST_") or name in _OTHERS:
        return False
    return name.removeprefix(_PREFIX).lower() not in Settings.model_fields


def _explain_unknown(name: str) -> str:
    known = [f"{_PREFIX}{field.upper()}" for field in Settings.model_fields]
    near = difflib.get_close_matches(name, known, 1, cutoff=0.85)
    guess = f"did you mean {near[0]}?" if near else "docs/settings.md lists them all"
    return f"{name} is not a setting: {guess}"


def _explain(error: ErrorDetails) -> str:
    name = "".join(f"{_PREFIX}{str(part).upper()}: " for part in error["loc"][:1])
    return f"{name}{error['msg'].removeprefix('Value error, ')}"
