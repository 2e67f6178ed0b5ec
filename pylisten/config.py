"""The configuration of a worker and of the command line.

Four layers, the first that says something wins: flags, the environment (``PYLISTEN_ESL_HOST``,
``PYLISTEN_HANDOFF_SOCKET``, …), a TOML file, the defaults. `load_config` reads them; ``Config()``
is the defaults alone.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FilePath,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from pylisten.errors import ConfigError, Problem
from pylisten.profiles import NOT_IN_A_PROFILE
from pylisten.urlrules import UrlRules, host_pattern
from pylisten.validation import expected, problems, refused
from pylisten.verb import NOT_YET, ProfileProperties, is_secret, unknown_property

__all__ = [
    "CONFIG_PATHS",
    "Config",
    "ConfigError",
    "EslConfig",
    "PlaybackConfig",
    "SilenceConfig",
    "WebSocketConfig",
    "WebhookConfig",
    "find_config",
    "load_config",
]

#: Where a configuration file is looked for when none is named.
CONFIG_PATHS = (Path("pylisten.toml"), Path("/etc/pylisten/pylisten.toml"))

# The run directories of FreeSWITCH built from source, and of its Debian packages.
_HANDOFF_SOCKETS = (
    Path("/usr/local/freeswitch/run/listen.sock"),
    Path("/var/run/freeswitch/listen.sock"),
)

# HELLO has room for 31 characters; the numbers of several workers ("-64") are added to the name.
_NAME_CHARACTERS = 28
_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{_NAME_CHARACTERS}}}")


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _one_line(value: str) -> str:
    """A secret read from a file often brings the file's last line break with it."""
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise refused("holds a line break or another control character")
    return value


_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _split(value: object) -> object:
    """A list in the environment or in a flag is separated by commas."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _host_pattern(value: str) -> str:
    try:
        return host_pattern(value)
    except ValueError:
        what = "a host as *.example.com or 10.0.*, without scheme, port and path"
        raise expected(what) from None


def _profile_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value):
        raise refused("not a name of 1 to 64 letters, digits, underscores or hyphens")
    return value


_HostPattern = Annotated[str, AfterValidator(_host_pattern)]
_ProfileName = Annotated[str, AfterValidator(_profile_name)]


def _default_name() -> str:
    """``<hostname>-<pid>``, the host name cut so that the process id stays whole."""
    suffix = f"-{os.getpid()}"
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())
    return host[: _NAME_CHARACTERS - len(suffix)] + suffix


def _default_handoff_socket() -> Path:
    return next((path for path in _HANDOFF_SOCKETS if path.exists()), _HANDOFF_SOCKETS[0])


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class EslConfig(_Section):
    """The switch's event socket."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8021, ge=1, le=65535)
    password: Annotated[str, AfterValidator(_one_line)] = Field(default="ClueCon", repr=False)

    @field_serializer("password")
    def _hidden(self, value: str) -> str:
        """Whoever prints the configuration does not print the password."""
        return "…"


class WebSocketConfig(_Section):
    """Connections to users' servers.

    ``ca_file`` (PEM) replaces the system's authorities; ``client_key`` may be left out when
    ``client_cert`` holds both. ``send_buffer_bytes`` is what may wait in a connection for a slow
    server; what exceeds it stays in the switch's ring. ``allowed_hosts`` and ``allow_link_local``
    are the rules for where audio may go.
    """

    connect_timeout_s: _Seconds = 10.0
    ping_interval_s: _Seconds = 5.0
    ping_timeout_s: _Seconds = 5.0
    ca_file: FilePath | None = None
    client_cert: FilePath | None = None
    client_key: FilePath | None = None
    verify: bool = True
    send_buffer_bytes: int = Field(default=16 * 1024, ge=1024, le=16 * 1024 * 1024)
    allowed_hosts: Annotated[tuple[_HostPattern, ...], BeforeValidator(_split), NoDecode] = ()
    allow_link_local: bool = False

    @field_validator("client_key")
    @classmethod
    def _with_cert(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("client_cert") is None:
            raise refused("is set, but client_cert is not")
        return value

    @property
    def url_rules(self) -> UrlRules:
        """The operator's rules, for `pylisten.urlrules.resolve`."""
        return UrlRules(self.allowed_hosts, self.allow_link_local)


class PlaybackConfig(_Section):
    """What happens to a clip that arrives while another one plays.

    ``default`` holds where ``playAudio`` brings no ``queuePlay``; ``queue_limit`` is the number of
    clips that may wait.
    """

    default: Literal["queue", "interrupt"] = "queue"
    queue_limit: int = Field(default=10, ge=1, le=1000)


class SilenceConfig(_Section):
    """What counts as silence for ``timeout`` in a verb.

    ``threshold_dbfs`` is the RMS level of a frame from which it is loud: 0 is the loudest there can
    be, a sine of full scale has -3. In silence it takes ``attack_ms`` of loud frames in a row to
    become speech, in speech ``hangover_ms`` of quiet frames in a row to become silence.
    """

    threshold_dbfs: float = Field(default=-40.0, ge=-90, le=0)
    attack_ms: int = Field(default=40, ge=20, le=1000)
    hangover_ms: int = Field(default=200, ge=20, le=5000)


class WebhookConfig(_Section):
    """Delivery of hooks. Without a ``secret`` they are not signed.

    Each of ``attempts`` tries may take ``timeout_s``; between two of them is a random time from
    ``retry_min_s`` up, which grows with each try, to ``retry_max_s`` at most. A worker that drains
    waits ``drain_s`` for hooks that are still under way.
    """

    secret: Annotated[str, Field(min_length=1), AfterValidator(_one_line)] | None = Field(
        default=None, repr=False
    )
    timeout_s: _Seconds = 10.0
    attempts: int = Field(default=3, ge=1, le=20)
    retry_min_s: _Seconds = 0.5
    retry_max_s: _Seconds = 8.0
    drain_s: float = Field(default=30.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.retry_min_s > self.retry_max_s:
            pauses = f"retry_min_s ({self.retry_min_s:g}), retry_max_s ({self.retry_max_s:g})"
            raise refused(f"{pauses}: the shortest pause is longer than the longest")
        return self

    @field_serializer("secret")
    def _hidden(self, value: str | None) -> str | None:
        """Whoever prints the configuration does not print the secret."""
        return None if value is None else "…"


class Config(BaseSettings):
    """All settings, checked. ``name`` is the worker's, unique per switch.

    ``profiles`` are properties of verbs, by the name that a verb's ``profile`` gives: see
    `pylisten.profiles`.
    """

    model_config = SettingsConfigDict(
        env_ignore_empty=True,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_prefix="PYLISTEN_",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    esl: EslConfig = EslConfig()
    handoff_socket: Path = Field(default_factory=_default_handoff_socket)
    websocket: WebSocketConfig = WebSocketConfig()
    playback: PlaybackConfig = PlaybackConfig()
    silence: SilenceConfig = SilenceConfig()
    webhook: WebhookConfig = WebhookConfig()
    profiles: dict[_ProfileName, ProfileProperties] = Field(default_factory=dict, repr=False)
    name: str = Field(default_factory=_default_name)
    workers: int = Field(default=1, ge=1, le=64)
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = (
        "info"
    )

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            limit = f"1 to {_NAME_CHARACTERS}"
            raise expected(f"{limit} letters, digits, dots, underscores or hyphens")
        return value

    @field_serializer("profiles")
    def _hidden(self, value: dict[str, object]) -> dict[str, str]:
        """Whoever prints the configuration does not print the secrets of profiles."""
        return dict.fromkeys(value, "…")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """`load_config` merges the layers itself, as it must know which one a fault comes from."""
        return (init_settings,)


def find_config(path: Path | None = None) -> Path | None:
    """The file that `load_config` reads: ``path``, else the first of `CONFIG_PATHS` that exists."""
    return path or next((known for known in CONFIG_PATHS if known.exists()), None)


def load_config(path: Path | None = None, overrides: Mapping[str, object] | None = None) -> Config:
    """Read and check the configuration.

    ``path`` names the TOML file, which must exist then. ``overrides`` are the flags, nested as the
    file is or with dotted keys (``{"esl.port": 8021}``); None means that a flag was not given.
    Raises `ConfigError`, a line for each fault: its source, key, what was found, what is allowed.
    """
    _check_environment()
    file = find_config(path)
    layers = {
        "flags": _nested(overrides or {}),
        "environment": EnvSettingsSource(Config)(),
        str(file): _read(file) if file else {},
    }
    merged: dict[str, Any] = {}
    for layer in reversed(layers.values()):
        merged = _merge(merged, layer)
    private = [key for key in merged if key.startswith("_")]  # BaseSettings has arguments like it
    faults = [Problem(key, _unknown((key,))) for key in private]
    try:
        config = Config(**{key: merged[key] for key in merged if key not in private})
    except ValidationError as error:
        faults += problems(error, _is_secret, _unknown)
    if faults:
        raise ConfigError("\n".join(_located(fault, layers) for fault in faults))
    return config


def _check_environment() -> None:
    """A misspelt variable would otherwise do nothing, silently."""
    known = {_variable(key) for key in _keys() if key != "profiles"}  # tables, not a value
    for variable in sorted(os.environ):
        if variable.startswith("PYLISTEN_") and variable not in known:
            raise ConfigError(f"environment: {variable}: unknown{_hint(variable, sorted(known))}")


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None


def _nested(flat: Mapping[str, object]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        if value is None:
            continue
        *sections, last = key.split(".")
        inner: dict[str, Any] = {last: _nested(value) if isinstance(value, Mapping) else value}
        for section in reversed(sections):
            inner = {section: inner}
        nested = _merge(nested, inner)
    return nested


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        lower = merged.get(key)
        if isinstance(lower, Mapping) and isinstance(value, Mapping):
            value = _merge(lower, value)
        merged[key] = value
    return merged


def _located(fault: Problem, layers: Mapping[str, Mapping[str, Any]]) -> str:
    """The fault with the layer that it comes from, and the name the key has there.

    What is missing comes from the layer that has the table it is missing in.
    """
    keys = fault.path.split(".")
    for depth in range(len(keys), 0, -1):
        for source, layer in layers.items():
            if _holds(layer, keys[:depth]):
                shown = _variable(fault.path) if source == "environment" else fault.path
                return f"{source}: {shown}: {fault.text}"
    return str(fault)


def _holds(layer: object, keys: list[str]) -> bool:
    for key in keys:
        if not isinstance(layer, Mapping) or key not in layer:
            return False
        layer = layer[key]
    return True


def _is_secret(path: str) -> bool:
    if path.startswith("profiles."):
        in_verb = ".".join(path.split(".")[2:])
        return not in_verb or is_secret(in_verb)
    return path.endswith(("password", "secret"))


def _keys() -> Iterator[str]:
    """The dotted keys of all settings."""
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, _Section):
            yield from (f"{name}.{key}" for key in section.model_fields)
        else:
            yield name


def _variable(key: str) -> str:
    return "PYLISTEN_" + key.replace(".", "_").upper()


def _unknown(keys: tuple[str, ...]) -> str:
    if keys[0] == "profiles":
        return unknown_property(keys[2:], NOT_YET | NOT_IN_A_PROFILE.keys())
    return f"unknown key{_hint('.'.join(keys), list(_keys()))}"


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {close[0]}?" if close else f", expected one of {', '.join(known)}"
