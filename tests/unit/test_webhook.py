"""Hooks, delivered to an HTTP server: what arrives, how often, and what becomes of the rest."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from aiohttp import BasicAuth, web
from jsonschema import Draft202012Validator, ValidationError
from pydantic import SecretStr

from pylisten import __version__
from pylisten.config import WebhookConfig
from pylisten.session import hook_body
from pylisten.verb import ActionHook
from pylisten.webhook import Counters, Webhooks
from tests.support.waiting import eventually
from tests.support.wsserver import CERTIFICATE, raw_server, unused_port

DOCS = Path(__file__).parents[2] / "docs"
ID = "5b0ad4a2-7f6d-4f0b-8c55-1f2f60d7a3b9"
SECRET = "a secret, ünd more"
BODY: dict[str, object] = {
    "call_sid": "8d6f3a5e-0c1e-4a58-9d0b-3f5a7c2f1f10",
    "direction": "inbound",
    "from": "1001",
    "to": "+49 30/123 & more",
    "caller_id": "1001",
    "caller_name": 'Jürgen "Jo" Groß',
    "call_id": "a84b4c76e66710@192.0.2.4",
    "call_status": "in-progress",
    "sip_status": 200,
    "originating_sip_ip": "192.0.2.4",
    "fs_host": "pbx1",
    "parent_call_sid": "e7e2b1f4-8a4c-4a7e-9df0-7a4d9d6d3a11",
    "listen_id": ID,
    "name": "listen",
    "verb_id": "ask-name",
    "dial_call_duration": 7,
    "digits": "#",
    "listen_duration_ms": 7340,
    "reason": "finish-key",
    "ws_close_code": 1000,
    "ws_close_reason": "finish-key",
    "bytes_sent": 117440,
    "gap_ms": 0,
}


@dataclass
class Received:
    """One request, as it came."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    number: int  # of the tries of this hook, from 0
    transport: asyncio.Transport

    @property
    def listen_id(self) -> str:
        return self.headers["Pylisten-Delivery"]


Answer = Callable[[Received], Awaitable[web.StreamResponse]]


class Application:
    """The user's application. ``answer`` is a status for all requests, one for each in turn (the
    last for all that follow), or a function."""

    def __init__(
        self,
        answer: int | list[int] | Answer = 200,
        *,
        port: int = 0,
        tls: bool = False,
    ) -> None:
        self._answer = _in_turn([answer] if isinstance(answer, int) else answer)
        self._port = port
        self._tls = tls
        self.requests: list[Received] = []
        self._tries: Counter[str] = Counter()
        self._news = asyncio.Condition()
        self._never = asyncio.Event()
        self._runner = web.ServerRunner(web.Server(self._take, access_log=None), shutdown_timeout=1)

    async def __aenter__(self) -> Application:
        context = None
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=context).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._never.set()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        host, port = self._runner.addresses[0][:2]
        return f"{'https' if self._tls else 'http'}://{host}:{port}/hook"

    @property
    def only(self) -> Received:
        assert len(self.requests) == 1
        return self.requests[0]

    async def arrived(self, count: int) -> None:
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(lambda: len(self.requests) >= count)

    async def hang(self, _: Received) -> web.StreamResponse:
        """An answer that does not come before the test ends."""
        await self._never.wait()
        return web.Response(status=500)

    def hanging(self) -> Application:
        self._answer = self.hang
        return self

    async def _take(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        path, _, query = request.raw_path.partition("?")
        listen_id = request.headers["Pylisten-Delivery"]
        received = Received(
            method=request.method,
            path=path,
            query=query,
            headers=dict(request.headers),
            body=await request.read(),
            number=self._tries[listen_id],
            transport=request.transport,
        )
        self._tries[listen_id] += 1
        self.requests.append(received)
        async with self._news:
            self._news.notify_all()
        return await self._answer(received)


def _in_turn(answer: list[int] | Answer) -> Answer:
    if not isinstance(answer, list):
        return answer

    async def by_number(received: Received) -> web.StreamResponse:
        return web.Response(status=answer[min(received.number, len(answer) - 1)])

    return by_number


def webhooks(max_pending: int = 10_000, tls: ssl.SSLContext | None = None, **set_: Any) -> Webhooks:
    """With short pauses, and a time-out that no slow machine reaches."""
    quick = {"retry_min_s": 0.01, "retry_max_s": 0.05, "timeout_s": 20.0}
    return Webhooks(
        WebhookConfig(**(quick | set_)),
        tls or ssl.create_default_context(),
        max_pending=max_pending,
    )


async def deliver(url: str | ActionHook, body: dict[str, object], **set_: Any) -> Counters:
    """Sends one hook and waits for what becomes of it."""
    hook = ActionHook(url=url) if isinstance(url, str) else url
    async with webhooks(**set_) as hooks:
        hooks.send(hook, body, listen_id=ID)
        assert hooks.counters.pending == 1
        assert await hooks.drain(30) == 0
        return hooks.counters


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]


DELIVERED = Counters(delivered=1, failed=0, retried=0, pending=0)
FAILED = Counters(delivered=0, failed=1, retried=0, pending=0)


# What arrives.


async def test_a_post_carries_the_body_and_says_who_sends_it() -> None:
    async with Application() as app:
        assert await deliver(app.url, BODY | {"absent": None}) == DELIVERED
    request = app.only
    assert (request.method, request.path, request.query) == ("POST", "/hook", "")
    assert json.loads(request.body) == BODY
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["User-Agent"] == f"pylisten/{__version__}"
    assert request.headers["Pylisten-Delivery"] == ID
    assert "Authorization" not in request.headers
    assert "Jambonz-Signature" not in request.headers


async def test_the_json_is_what_javascript_would_write() -> None:
    """Receivers check the signature on what they parsed and wrote again."""
    async with Application() as app:
        await deliver(app.url, {"from": "Jürgen\u2028😀", "half": "\ud800", "n": 1})
    assert app.only.body == '{"from":"Jürgen\u2028😀","half":"\\ud800","n":1}'.encode()


async def test_a_get_carries_the_body_as_parameters() -> None:
    async with Application() as app:
        hook = ActionHook(url=f"{app.url}?token=a%2Bb%26&from=x", method="GET")
        body = BODY | {"flag": True, "list": [1, "a"], "absent": None}
        assert await deliver(hook, body) == DELIVERED
    request = app.only
    assert (request.method, request.body) == ("GET", b"")
    assert "Content-Type" not in request.headers
    expected = {key: str(value) for key, value in BODY.items()}
    assert parse_qsl(request.query, strict_parsing=True) == [
        ("token", "a+b&"),
        ("from", "x"),
        *expected.items(),
        ("flag", "true"),
        ("list", '[1,"a"]'),
    ]


async def test_a_get_without_a_path() -> None:
    async with Application() as app:
        hook = ActionHook(url=app.url.removesuffix("/hook"), method="GET")
        assert await deliver(hook, {"a": "b c"}) == DELIVERED
    assert (app.only.path, app.only.query) == ("/", "a=b%20c")


async def test_credentials_go_by_http_basic() -> None:
    async with Application() as app:
        hook = ActionHook(url=app.url, username="jürgen", password=SecretStr("pass:wörd"))
        await deliver(hook, BODY)
    auth = BasicAuth.decode(app.only.headers["Authorization"], encoding="utf-8")
    assert (auth.login, auth.password) == ("jürgen", "pass:wörd")


async def test_the_body_is_that_of_the_moment_of_sending() -> None:
    body: dict[str, object] = {"reason": "hangup"}
    async with Application() as app, webhooks() as hooks:
        hooks.send(ActionHook(url=app.url), body, listen_id=ID)
        body["reason"] = "changed"
        await hooks.drain(20)
    assert app.only.body == b'{"reason":"hangup"}'


async def test_no_cookie_is_kept() -> None:
    async def with_cookie(_: Received) -> web.StreamResponse:
        return web.Response(headers={"Set-Cookie": "a=b"})

    async with Application(with_cookie) as app, webhooks() as hooks:
        for _ in range(2):
            hooks.send(ActionHook(url=app.url.replace("127.0.0.1", "localhost")), {}, listen_id=ID)
            assert await hooks.drain(20) == 0
    assert not any("Cookie" in request.headers for request in app.requests)


# The signature.


def is_genuine() -> Callable[..., bool]:
    """The function that the documentation gives to users."""
    page = (DOCS / "how-to/verify-a-hook.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    function: Callable[..., bool] = names["is_genuine"]
    return function


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_the_signature_is_what_the_documentation_says(method: Any) -> None:
    async with Application() as app:
        hook = ActionHook(url=f"{app.url}?a=%C3%BC", method=method)
        await deliver(hook, BODY, secret=SECRET)
    request, check = app.only, is_genuine()
    content = request.body if method == "POST" else request.query.encode()
    header = request.headers["Jambonz-Signature"]
    assert check(content, header, SECRET)
    assert not check(content + b" ", header, SECRET)
    assert not check(content, header, "another secret")
    assert not check(content, header.replace("t=", "t=1"), SECRET)
    assert not check(content, header, SECRET, tolerance_s=-1)
    assert not check(content, "rubbish", SECRET)


async def test_openssl_makes_the_same_signature() -> None:
    async with Application() as app:
        await deliver(app.url, BODY, secret=SECRET)
    match = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", app.only.headers["Jambonz-Signature"])
    assert match
    assert abs(int(match[1]) - time.time()) < 60
    openssl = await asyncio.create_subprocess_exec(
        *["openssl", "dgst", "-sha256", "-hmac", SECRET],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    made, _ = await openssl.communicate(match[1].encode() + b"." + app.only.body)
    assert made.split()[-1].decode() == match[2]


# Tries.


async def test_a_hook_is_tried_again_while_the_application_fails() -> None:
    async with Application([503, 500, 200]) as app:
        assert await deliver(app.url, BODY, secret=SECRET) == Counters(1, 0, retried=2, pending=0)
    assert len(app.requests) == 3
    assert {request.listen_id for request in app.requests} == {ID}
    assert len({request.body for request in app.requests}) == 1
    check = is_genuine()
    assert all(check(r.body, r.headers["Jambonz-Signature"], SECRET) for r in app.requests)


async def test_an_application_that_starts_late_gets_its_hook() -> None:
    port = unused_port()
    async with webhooks(attempts=20, retry_min_s=0.2, retry_max_s=0.4) as hooks:
        hooks.send(ActionHook(url=f"http://127.0.0.1:{port}/hook"), BODY, listen_id=ID)

        async def refused() -> bool:
            return hooks.counters.retried > 0

        await eventually(refused)
        async with Application(port=port) as app:
            assert await hooks.drain(20) == 0
        assert (hooks.counters.delivered, len(app.requests)) == (1, 1)


async def test_an_answer_that_does_not_come_is_not_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Application().hanging() as app:
        counters = await deliver(app.url, BODY, timeout_s=0.3, attempts=2)
    assert counters == Counters(0, failed=1, retried=1, pending=0)
    assert len(app.requests) == 2
    (error,) = errors(caplog)
    assert "no answer within 0.3 s" in error


async def test_a_broken_connection_is_tried_again() -> None:
    async def break_first(received: Received) -> web.StreamResponse:
        if received.number == 0:
            received.transport.abort()
        return web.Response(status=204)

    async with Application(break_first) as app:
        assert await deliver(app.url, BODY) == Counters(1, 0, retried=1, pending=0)


async def test_the_tries_come_to_an_end(caplog: pytest.LogCaptureFixture) -> None:
    async with Application(503) as app:
        counters = await deliver(app.url, BODY, attempts=4)
    assert counters == Counters(0, failed=1, retried=3, pending=0)
    assert len(app.requests) == 4
    (error,) = errors(caplog)
    assert "it answered HTTP 503" in error


async def test_pauses_grow_and_stay_within_their_bounds(caplog: pytest.LogCaptureFixture) -> None:
    async with Application(503) as app:
        await deliver(app.url, BODY, attempts=6, retry_min_s=0.1, retry_max_s=0.3)
    pauses = [
        r.args[-1] for r in caplog.records if isinstance(r.args, tuple) and "the next" in r.msg
    ]
    assert len(pauses) == 5
    assert all(isinstance(pause, float) and 0.1 <= pause <= 0.3 for pause in pauses)
    assert len(set(pauses)) > 1


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_these_answers_mean_taken(status: int) -> None:
    async with Application(status) as app:
        assert await deliver(app.url, BODY) == DELIVERED


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (201, "it answered HTTP 201, expected 200, 202 or 204"),
        (401, "it refused the credentials or the signature (HTTP 401)"),
        (404, "it answered HTTP 404"),
        (429, "it answered HTTP 429"),
    ],
)
async def test_these_answers_are_final(
    status: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Application(status) as app:
        assert await deliver(app.url, BODY) == FAILED
    assert len(app.requests) == 1
    (error,) = errors(caplog)
    assert reason in error


async def test_a_redirect_is_not_followed(caplog: pytest.LogCaptureFixture) -> None:
    async with Application() as other:

        async def redirect(_: Received) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": other.url})

        async with Application(redirect) as app:
            assert await deliver(app.url, BODY) == FAILED
        assert other.requests == []
    (error,) = errors(caplog)
    assert "it redirects (HTTP 307); redirects are refused" in error


async def test_what_is_not_http_is_final(caplog: pytest.LogCaptureFixture) -> None:
    async with raw_server(b"SSH-2.0-OpenSSH_9.6\r\n") as port:
        assert await deliver(f"http://127.0.0.1:{port}/", BODY) == FAILED
    (error,) = errors(caplog)
    assert "the answer is not valid HTTP" in error


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://hooks.invalid/", "the host name cannot be resolved"),
        ("http://a..b/", "the host name in the URL of the hook is not valid"),
        ("http://127.0.0.1:{port}/", "connection refused: nobody listens on that port"),
    ],
)
async def test_a_host_that_is_not_there_is_named(
    url: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    await deliver(url.format(port=unused_port()), BODY, attempts=1)
    (error,) = errors(caplog)
    assert reason in error


# https.


async def test_https_trusts_the_authorities_of_the_context() -> None:
    async with Application(tls=True) as app:
        trusting = ssl.create_default_context(cafile=CERTIFICATE)
        assert await deliver(app.url, BODY, tls=trusting) == DELIVERED


async def test_https_refuses_a_certificate_of_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with Application(tls=True) as app:
        assert (await deliver(app.url, BODY, attempts=1)).failed == 1
    assert app.requests == []
    (error,) = errors(caplog)
    assert "its TLS certificate is not trusted" in error


async def test_https_to_a_server_without_it(caplog: pytest.LogCaptureFixture) -> None:
    async with Application() as app:
        await deliver(app.url.replace("http:", "https:"), BODY, attempts=1)
    (error,) = errors(caplog)
    assert "TLS failed: is this an https server?" in error


# The answer.


def answering(body: bytes, **more: Any) -> Application:
    async def answer(_: Received) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json", **more)

    return Application(answer)


async def test_verbs_in_the_answer_are_told_and_not_run(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with answering(b'[{"verb":"hangup"},{"verb":"say"}]') as app:
        assert await deliver(app.url, BODY) == DELIVERED
    assert "answered with 2 verbs, which this release does not run" in caplog.text


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"{}", b"OK", b"[" * 100_000, b"\xff", b"[1" + b",1" * 600_000 + b"]"],
    ids=["empty", "no verbs", "object", "text", "nested", "not UTF-8", "above 1 MiB"],
)
async def test_any_other_answer_is_as_good_as_none(
    answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with answering(answer) as app:
        assert await deliver(app.url, BODY) == DELIVERED
    assert not caplog.records


async def test_an_answer_that_breaks_off_counts() -> None:
    async with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[") as port:
        assert await deliver(f"http://127.0.0.1:{port}/", BODY) == DELIVERED


async def test_a_hook_that_was_taken_is_delivered_even_if_its_answer_is_never_read() -> None:
    begun = asyncio.Event()

    async def endless(received: Received) -> web.StreamResponse:
        received.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[")
        begun.set()
        return await app.hang(received)

    async with Application(endless) as app, webhooks() as hooks:
        hooks.send(ActionHook(url=app.url), BODY, listen_id=ID)
        await begun.wait()
        assert await hooks.drain(1) == 1
        await hooks.close()
        assert hooks.counters == DELIVERED


# Stopping, and limits.


async def test_draining_takes_no_longer_than_it_may(caplog: pytest.LogCaptureFixture) -> None:
    async with Application().hanging() as app, webhooks() as hooks:
        for number in range(3):
            hooks.send(ActionHook(url=app.url), {"number": number}, listen_id=f"listen-{number}")
        await app.arrived(3)
        begun = time.monotonic()
        assert await hooks.drain(0.2) == 3
        assert time.monotonic() - begun < 10
        assert hooks.counters.pending == 3
        await hooks.close()
        assert hooks.counters == Counters(0, failed=3, retried=0, pending=0)
    assert len(errors(caplog)) == 3
    assert (
        'listen-2: its hook is not delivered: pylisten stopped; body: {"number":2}' in caplog.text
    )


async def test_what_waits_for_its_next_try_is_told_when_pylisten_stops(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Application(503) as app, webhooks(retry_min_s=60, retry_max_s=60) as hooks:
        hooks.send(ActionHook(url=app.url), BODY, listen_id=ID)
        await app.arrived(1)
    assert hooks.counters.failed == 1
    assert len(errors(caplog)) == 1


async def test_draining_includes_what_comes_meanwhile() -> None:
    async def send_another(received: Received) -> web.StreamResponse:
        if received.listen_id == "first":
            hooks.send(ActionHook(url=app.url), {}, listen_id="second")
        return web.Response()

    async with Application(send_another) as app, webhooks() as hooks:
        hooks.send(ActionHook(url=app.url), {}, listen_id="first")
        assert await hooks.drain(20) == 0
        assert hooks.counters.delivered == 2


async def test_after_the_end_a_hook_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with Application() as app:
        async with webhooks() as hooks:
            pass
        hooks.send(ActionHook(url=app.url), {"reason": "hangup"}, listen_id=ID)
        assert app.requests == []
    assert hooks.counters == FAILED
    (error,) = errors(caplog)
    assert '{"reason":"hangup"}' in error


async def test_hooks_that_memory_has_no_room_for_fail_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Application().hanging() as app, webhooks(max_pending=5) as hooks:
        for number in range(7):
            hooks.send(ActionHook(url=app.url), {"number": number}, listen_id=f"listen-{number}")
        assert hooks.counters == Counters(0, failed=2, retried=0, pending=5)
        assert ["5 hooks are under way already" in error for error in errors(caplog)] == [True] * 2
        assert '{"number":6}' in errors(caplog)[-1]


async def test_a_body_that_is_no_json_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with webhooks() as hooks:
        hooks.send(ActionHook(url="http://127.0.0.1/"), {"a": object()}, listen_id=ID)
        assert hooks.counters == FAILED
    (error,) = errors(caplog)
    assert "not JSON serializable" in error


async def test_an_application_that_hangs_does_not_hold_up_another() -> None:
    async with Application().hanging() as slow, Application() as good, webhooks() as hooks:
        for number in range(300):
            hooks.send(ActionHook(url=slow.url), {}, listen_id=f"slow-{number}")
        hooks.send(ActionHook(url=good.url), {}, listen_id="good")
        await good.arrived(1)
        assert len(slow.requests) <= 32


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_failure_tells_the_body_and_no_secret(
    method: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Application([503, 403]) as app:
        hook = ActionHook(
            url=f"{app.url}/token-1?key=token-2",
            method=method,
            username="the-user",
            password=SecretStr("the-password"),
        )
        await deliver(hook, BODY, secret="the-secret")
        origin = app.url.removesuffix("/hook")
    (error,) = errors(caplog)
    assert json.loads(error.partition("; body: ")[2]) == BODY
    assert f" {origin}: it refused" in error
    request = app.requests[0]
    hidden = [request.headers["Jambonz-Signature"], request.headers["Authorization"].split()[1]]
    for secret in ["the-user", "the-password", "the-secret", "token-1", "token-2", *hidden]:
        assert secret not in caplog.text


# All together.

ATTEMPTS = 4
FATES = ("taken", "failing", "broken", "refused")


def tries_of(fates: list[str]) -> int:
    """After how many tries a hook with these fates has come to its end."""
    ends = [n for n, fate in enumerate(fates, 1) if fate in ("taken", "refused")]
    return ends[0] if ends else ATTEMPTS


async def test_each_of_many_hooks_is_delivered_once_or_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chance = random.Random(4)
    fates = {
        f"listen-{number}": chance.choices(FATES, (4, 3, 3, 1), k=ATTEMPTS) for number in range(200)
    }

    async def answer(received: Received) -> web.StreamResponse:
        match fates[received.listen_id][received.number]:
            case "taken":
                return web.Response(status=200)
            case "failing":
                return web.Response(status=502)
            case "refused":
                return web.Response(status=410)
            case _:
                received.transport.abort()
                return web.Response()

    async with Application(answer) as app, webhooks(attempts=ATTEMPTS) as hooks:
        for number, listen_id in enumerate(fates):
            hook = ActionHook(url=app.url, method="GET" if number % 2 else "POST")
            hooks.send(hook, {"listen_id": listen_id}, listen_id=listen_id)
        assert hooks.counters.pending == 200
        assert await hooks.drain(60) == 0
        counters = hooks.counters

    tries = Counter(request.listen_id for request in app.requests)
    assert tries == {listen_id: tries_of(fates[listen_id]) for listen_id in fates}
    taken = {name for name, count in tries.items() if fates[name][count - 1] == "taken"}
    assert 0 < len(taken) < 200
    assert counters == Counters(
        delivered=len(taken),
        failed=200 - len(taken),
        retried=sum(tries.values()) - 200,
        pending=0,
    )
    told = [json.loads(error.partition("; body: ")[2])["listen_id"] for error in errors(caplog)]
    assert Counter(told) == Counter(set(fates) - taken)


# The schema.


SCHEMA: dict[str, Any] = json.loads(
    (DOCS / "reference/schemas/hook.schema.json").read_text("utf-8")
)


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    Draft202012Validator.check_schema(SCHEMA)
    return Draft202012Validator(SCHEMA)


async def test_what_arrives_fits_the_schema(schema: Draft202012Validator) -> None:
    async with Application() as app:
        await deliver(app.url, BODY)
    schema.validate(json.loads(app.only.body))


def test_what_a_session_tells_fits_the_schema(schema: Draft202012Validator) -> None:
    call = ("callSid", "direction", "from", "to", "callerId", "callerName", "callId", "callStatus")
    attributes: dict[str, Any] = dict.fromkeys((*call, "fsHost", "parentCallSid"), "1001")
    attributes |= {"direction": "outbound", "sipStatus": 200, "originatingSipIp": "192.0.2.4"}
    schema.validate(hook_body(ID, attributes, name="listen", reason="connect-failed"))
    whole = hook_body(
        ID,
        attributes,
        name="listen",
        reason="finish-key",
        verb_id="ask-name",
        duration_ms=7340,
        digits="#",
        close_code=1000,
        close_reason="finish-key",
        bytes_sent=117440,
        gap_ms=20,
    )
    schema.validate(whole)
    assert set(whole) == set(SCHEMA["properties"])


def test_the_schema_knows_every_property() -> None:
    assert set(SCHEMA["properties"]) == set(BODY)


def test_a_listen_that_failed_at_its_start_fits_the_schema(schema: Draft202012Validator) -> None:
    absent = {"digits", "ws_close_code", "ws_close_reason", "verb_id", "parent_call_sid", "from"}
    zero = {"dial_call_duration": 0, "listen_duration_ms": 0, "bytes_sent": 0}
    body = {key: value for key, value in BODY.items() if key not in absent}
    schema.validate(body | zero | {"reason": "connect-failed"})


@pytest.mark.parametrize(
    "fault",
    [
        {"reason": "tired"},
        {"dial_call_duration": 7.34},
        {"bytes_sent": "117440"},
        {"gap_ms": -1},
        {"digits": "12"},
        {"ws_close_code": None},
        {"sip_status": "200"},
        {"name": "a b"},
    ],
)
def test_the_schema_refuses_faults(schema: Draft202012Validator, fault: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        schema.validate(BODY | fault)


def test_the_reference_shows_a_body_that_fits_the_schema(schema: Draft202012Validator) -> None:
    page = (DOCS / "reference/hook.md").read_text("utf-8")
    (example,) = re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    body = json.loads(example)
    schema.validate(body)
    assert set(body) == set(BODY) - {"parent_call_sid"}
    described = re.findall(r"`(\w+)`", page.partition("## The body")[2].partition("## The a")[0])
    assert set(BODY) <= set(described)


def test_the_schema_knows_every_reason() -> None:
    page = (DOCS / "reference/api.md").read_text("utf-8").partition("## Reasons")[2]
    reasons = re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)
    assert "hangup" in reasons
    assert set(reasons) <= set(SCHEMA["properties"]["reason"]["enum"])
