"""The configuration: its layers, its defaults, and what a mistake in it is answered with."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pylisten import config as module
from pylisten.config import Config, ConfigError, find_config, load_config


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the machine's own configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "CONFIG_PATHS", (Path("pylisten.toml"), tmp_path / "etc.toml"))
    for variable in list(os.environ):
        if variable.startswith("PYLISTEN_"):
            monkeypatch.delenv(variable)


def write(text: str, name: str = "pylisten.toml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path | None = None, overrides: dict[str, Any] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_the_defaults_need_no_file() -> None:
    config = load_config()
    assert (config.esl.host, config.esl.port, config.esl.password) == ("127.0.0.1", 8021, "ClueCon")
    assert (config.workers, config.log_level) == (1, "info")
    assert (config.playback.default, config.playback.queue_limit) == ("queue", 10)
    assert config.websocket.verify
    assert config.websocket.ca_file is None
    assert config.webhook.secret is None
    assert config.name.endswith(f"-{os.getpid()}")


def test_every_layer_hides_the_ones_below(monkeypatch: pytest.MonkeyPatch) -> None:
    write('name = "file"\nworkers = 2\n[esl]\nhost = "file"\nport = 1\npassword = "file"\n')
    monkeypatch.setenv("PYLISTEN_ESL_PORT", "2")
    monkeypatch.setenv("PYLISTEN_ESL_PASSWORD", "environment")
    config = load_config(overrides={"esl.password": "flag", "log_level": "DEBUG"})
    assert (config.esl.host, config.esl.port, config.esl.password) == ("file", 2, "flag")
    assert (config.name, config.workers, config.log_level) == ("file", 2, "debug")


def test_every_setting_has_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pem = write("", "some.pem")
    settings = {
        "ESL_HOST": "switch",
        "ESL_PORT": "18021",
        "ESL_PASSWORD": "s3cret",
        "HANDOFF_SOCKET": "/run/x.sock",
        "WEBSOCKET_CONNECT_TIMEOUT_S": "1.5",
        "WEBSOCKET_PING_INTERVAL_S": "2",
        "WEBSOCKET_PING_TIMEOUT_S": "3",
        "WEBSOCKET_CA_FILE": str(pem),
        "WEBSOCKET_CLIENT_CERT": str(pem),
        "WEBSOCKET_CLIENT_KEY": str(pem),
        "WEBSOCKET_VERIFY": "false",
        "WEBSOCKET_SEND_BUFFER_BYTES": "4096",
        "WEBSOCKET_ALLOWED_HOSTS": "*.Example.com, bücher.example,10.0.*",
        "WEBSOCKET_ALLOW_LINK_LOCAL": "true",
        "PLAYBACK_DEFAULT": "interrupt",
        "PLAYBACK_QUEUE_LIMIT": "3",
        "SILENCE_THRESHOLD_DBFS": "-52.5",
        "SILENCE_ATTACK_MS": "60",
        "SILENCE_HANGOVER_MS": "400",
        "WEBHOOK_SECRET": "k3y",
        "WEBHOOK_TIMEOUT_S": "4",
        "WEBHOOK_ATTEMPTS": "5",
        "WEBHOOK_RETRY_MIN_S": "0.25",
        "WEBHOOK_RETRY_MAX_S": "2",
        "WEBHOOK_DRAIN_S": "0",
        "NAME": "w1",
        "WORKERS": "4",
        "LOG_LEVEL": "WARNING",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"PYLISTEN_{name}", value)
    config = load_config()
    assert config.model_dump(mode="json") == {
        "esl": {"host": "switch", "port": 18021, "password": "…"},
        "handoff_socket": "/run/x.sock",
        "websocket": {
            "connect_timeout_s": 1.5,
            "ping_interval_s": 2.0,
            "ping_timeout_s": 3.0,
            "ca_file": str(pem),
            "client_cert": str(pem),
            "client_key": str(pem),
            "verify": False,
            "send_buffer_bytes": 4096,
            "allowed_hosts": ["*.example.com", "xn--bcher-kva.example", "10.0.*"],
            "allow_link_local": True,
        },
        "playback": {"default": "interrupt", "queue_limit": 3},
        "silence": {"threshold_dbfs": -52.5, "attack_ms": 60, "hangover_ms": 400},
        "webhook": {
            "secret": "…",
            "timeout_s": 4.0,
            "attempts": 5,
            "retry_min_s": 0.25,
            "retry_max_s": 2.0,
            "drain_s": 0.0,
        },
        "profiles": {},
        "name": "w1",
        "workers": 4,
        "log_level": "warning",
    }
    assert (config.esl.password, config.webhook.secret) == ("s3cret", "k3y")
    assert "s3cret" not in repr(config)
    assert "k3y" not in repr(config)


def test_an_empty_variable_is_the_same_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYLISTEN_ESL_PORT", "")
    assert load_config().esl.port == 8021


def test_flags_may_be_nested_and_absent() -> None:
    config = load_config(overrides={"esl": {"port": 9, "host": None}, "name": None, "workers": 3})
    assert (config.esl.port, config.esl.host, config.workers) == (9, "127.0.0.1", 3)


def test_the_first_file_that_exists_is_read(tmp_path: Path) -> None:
    assert find_config() is None
    write("workers = 2", "etc.toml")
    assert load_config().workers == 2
    write("workers = 3", "pylisten.toml")
    assert load_config().workers == 3
    named = write("workers = 4", "named.toml")
    assert load_config(named).workers == 4


def test_a_configuration_cannot_be_changed() -> None:
    config = Config()
    with pytest.raises(ValidationError):
        config.name = "x"


def test_the_handoff_socket_that_exists_is_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built, packaged = tmp_path / "built.sock", tmp_path / "packaged.sock"
    monkeypatch.setattr(module, "_HANDOFF_SOCKETS", (built, packaged))
    assert load_config().handoff_socket == built
    packaged.touch()
    assert load_config().handoff_socket == packaged
    built.touch()
    assert load_config().handoff_socket == built


def test_a_long_host_name_leaves_room_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "väry-long." * 9)
    name = load_config().name
    assert name.startswith("v-ry-long.v-ry")
    assert name.endswith(f"-{os.getpid()}")
    assert len(name) == 28


def test_a_fault_names_file_key_found_and_expected() -> None:
    path = write('[esl]\nport = "x"\n')
    assert refusal() == 'pylisten.toml: esl.port: found "x", expected a whole number'
    named = path.rename("other.toml").absolute()
    assert refusal(named) == f'{named}: esl.port: found "x", expected a whole number'


def test_a_fault_names_the_variable_or_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    write("workers = 0")
    monkeypatch.setenv("PYLISTEN_ESL_PORT", "70000")
    assert refusal(overrides={"log_level": "loud"}).splitlines() == [
        'environment: PYLISTEN_ESL_PORT: found "70000", expected a number up to 65535',
        "pylisten.toml: workers: found 0, expected a number from 1 up",
        'flags: log_level: found "loud", expected one of debug, info, warning, error',
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[esl]\nhots = 'a'", "esl.hots: unknown key, did you mean esl.host?"),
        ("handof_socket = 'a'", "handof_socket: unknown key, did you mean handoff_socket?"),
        ("[zzz]\na = 1", "zzz: unknown key, expected one of esl.host, "),
        ("_env_file = 'x'", "_env_file: unknown key"),
        ("esl = 5", "esl: found 5, expected an object"),
        ("[esl]\nhost = ''", 'esl.host: found "", expected at least 1 character(s)'),
        ("[websocket]\nverify = 'perhaps'", "websocket.verify: found"),
        ("[websocket]\nconnect_timeout_s = 0", "connect_timeout_s: found 0, expected a number ab"),
        ("[websocket]\nping_timeout_s = inf", "ping_timeout_s: found Infinity, expected a finite"),
        ("[websocket]\nca_file = '/nope'", 'ca_file: found "/nope", expected an existing file'),
        ("[websocket]\nsend_buffer_bytes = 1", "send_buffer_bytes: found 1, expected a number fr"),
        (
            "[websocket]\nallowed_hosts = ['ws://h']",
            'allowed_hosts.0: found "ws://h", expected a h',
        ),
        ("[websocket]\nallowed_hosts = ['h:80']", "without scheme, port and path"),
        ("[websocket]\nallowed_hosts = 5", "websocket.allowed_hosts: found 5, expected an array"),
        ("[profile.bot]\nurl = 'wss://h'", "profile: unknown key, did you mean profiles?"),
        ("profiles = 5", "profiles: found 5, expected an object"),
        ("[profiles]\nbot = 'wss://h'", "profiles.bot: found a string, expected an object"),
        ("[profiles.'a b']", "profiles.a b: not a name of 1 to 64 letters, digits, underscores or"),
        ("[profiles.bot]\nurl = 'bot'", "profiles.bot.url: found another kind of URL, expected ws"),
        ("[profiles.bot]\nmaxLength = 0", "profiles.bot.maxLength: found 0, expected a number abo"),
        (
            "[profiles.bot]\nmaxLenght = 1",
            "maxLenght: unknown property, expected one of url, id, m",
        ),
        ("[profiles.bot]\nmaxLenght = 1", "(did you mean maxLength?)"),
        ("[profiles.bot]\nwsAuth = {username = 'u'}", "profiles.bot.wsAuth.password: missing"),
        ("[profiles.bot]\nchannel = 2", "profiles.bot.channel: not supported by this version"),
        ("[profiles.bot]\nprofile = 'a'", "profiles.bot.profile: a profile cannot use another one"),
        ("[playback]\ndefault = 'stop'", 'found "stop", expected one of queue, interrupt'),
        ("[playback]\nqueue_limit = 1.5", "queue_limit: found 1.5, expected a whole number"),
        ("[silence]\nthreshold_dbfs = 1", "silence.threshold_dbfs: found 1, expected a number up"),
        ("[silence]\nthreshold_dbfs = -91", "found -91, expected a number from -90 up"),
        ("[silence]\nattack_ms = 0", "silence.attack_ms: found 0, expected a number from 20 up"),
        ("[silence]\nhangover_ms = 6000", "found 6000, expected a number up to 5000"),
        ("[webhook]\nattempts = 0", "webhook.attempts: found 0, expected a number from 1 up"),
        ("[webhook]\ntimeout_s = 0", "webhook.timeout_s: found 0, expected a number above 0"),
        ("[webhook]\nsecret = ''", "webhook.secret: found a string, expected at least 1 charac"),
        ("[webhook]\nretry_min_s = 9", "webhook: retry_min_s (9), retry_max_s (8): the shortest"),
        ("[webhook]\nretry_max_s = 0.1", "webhook: retry_min_s (0.5), retry_max_s (0.1): the sh"),
        ("name = 'a b'", 'name: found "a b", expected 1 to 28 letters, digits, dots'),
        ("workers = ", "not valid TOML: Invalid value"),
        ("workers = 1\nworkers = 2", "not valid TOML: Cannot overwrite a value"),
    ],
)
def test_a_mistake_is_explained(text: str, fault: str) -> None:
    path = write(text)
    explanation = refusal()
    assert explanation.startswith(f"{path}: ")
    assert fault in explanation


def test_a_password_is_not_repeated() -> None:
    write('[esl]\npassword = ["hunter2"]')
    assert refusal() == "pylisten.toml: esl.password: found an array, expected a string"
    write('[esl]\npassword = "hunter2\\nevil"')
    assert refusal() == (
        "pylisten.toml: esl.password: holds a line break or another control character"
    )


def test_a_secret_is_not_repeated() -> None:
    write("[webhook]\nsecret = 5")
    assert refusal() == "pylisten.toml: webhook.secret: found a number, expected a string"
    write('[webhook]\nsecret = "hunter2\\n"')
    assert refusal() == (
        "pylisten.toml: webhook.secret: holds a line break or another control character"
    )


@pytest.mark.parametrize(
    "line",
    [
        "verb = 'listen'",
        "name = 'a'",
        "mixType = 'mono'",
        "sampleRate = 8000",
        "disableBidirectionalAudio = false",
        "bidirectionalAudio = {enabled = true}",
        "includePlayback = false",
        "earlyMedia = false",
        "playBeep = false",
    ],
)
def test_a_profile_does_not_hold_what_the_switch_needs(line: str) -> None:
    write(f"[profiles.bot]\n{line}")
    key = line.split()[0]
    assert refusal().startswith(f"pylisten.toml: profiles.bot.{key}: cannot stand in a profile: ")


def test_profiles_are_kept_as_they_were_written() -> None:
    write(
        """
        [profiles.bot]
        url = "wss://bot.example.com/audio?token=t0ken"
        wsAuth = {username = "u", password = "hunter2"}
        headers = {X-Key = "k3y"}
        reconnect = {attempts = 2}
        [profiles.bot.metadata]
        tenant = "acme"
        [profiles.caller_pays]
        """
    )
    config = load_config()
    assert config.profiles == {
        "bot": {
            "url": "wss://bot.example.com/audio?token=t0ken",
            "wsAuth": {"username": "u", "password": "hunter2"},
            "headers": {"X-Key": "k3y"},
            "reconnect": {"attempts": 2},
            "metadata": {"tenant": "acme"},
        },
        "caller_pays": {},
    }
    for shown in (repr(config), config.model_dump_json()):
        assert not any(secret in shown for secret in ("t0ken", "hunter2", "k3y"))


def test_secrets_in_profiles_are_not_repeated() -> None:
    write(
        """
        [profiles.a]
        url = "wss://u:s3cret@h"
        wsAuth = "u:s3cret"
        headers = "X: s3cret"
        actionHook = {url = "http://u:s3cret@h", username = ["s3cret"], password = ["s3cret"]}
        [profiles.b]
        wsAuth = {username = "u", password = "s3\\ncret"}
        headers = {X = ["s3cret"]}
        """
    )
    assert "s3cret" not in refusal()
    assert len(refusal().splitlines()) == 8


def test_a_key_needs_its_certificate() -> None:
    pem = write("", "some.pem")
    write(f'[websocket]\nclient_key = "{pem}"')
    assert refusal() == "pylisten.toml: websocket.client_key: is set, but client_cert is not"


def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYLISTEN_ESL_PASWORD", "x")
    assert refusal() == (
        "environment: PYLISTEN_ESL_PASWORD: unknown, did you mean PYLISTEN_ESL_PASSWORD?"
    )


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.toml") == (
        f"{tmp_path / 'no.toml'}: cannot be read: No such file or directory"
    )
    assert refusal(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"


def test_a_file_that_is_not_utf_8_is_refused() -> None:
    Path("pylisten.toml").write_bytes(b'name = "\xff"')
    assert "pylisten.toml: not valid TOML: 'utf-8' codec" in refusal()


def test_the_reference_describes_every_key_and_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/configuration.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.+?) \|", page, re.MULTILINE))
    defaults: dict[str, object] = {}
    for key, value in Config().model_dump(mode="json").items():
        if isinstance(value, dict):
            defaults |= {f"{key}.{inner}": default for inner, default in value.items()}
        else:
            defaults[key] = value
    assert set(rows) == set(defaults)
    machine = {"esl.password", "handoff_socket", "name"}
    for key in set(rows) - machine:
        if (default := defaults[key]) is not None:
            text = f"{default:g}" if isinstance(default, float) else str(default)
            assert rows[key] == f"`{text.lower()}`"
