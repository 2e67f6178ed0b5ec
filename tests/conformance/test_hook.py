"""What an application that was made for jambonz makes of the hook at the end of a listen."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from pylisten.actions import hook_body
from pylisten.config import Config, WebhookConfig
from pylisten.verb import ActionHook
from pylisten.webhook import Webhooks
from tests.conformance.sdk import HOOK_SECRET, Application
from tests.contract import backends
from tests.contract.backends import RATE_HZ, Backend
from tests.support import tones

ATTRIBUTES: dict[str, Any] = {
    "callSid": "6f01b016-e4ba-49f2-b19b-9a22cae637ff",
    "direction": "inbound",
    "from": "+15550100",
    "to": "+15550199",
    "callerId": "+15550100",
    "callerName": 'Jürgen "Jo" \\ \u2028 Müller-\N{GRINNING FACE} <b>&\t\x7f',
    "callId": "414515ff@192.0.2.1",
    "callStatus": "completed",
    "sipStatus": 200,
    "originatingSipIp": "192.0.2.1",
    "fsHost": "switch-1",
}
ENDS: list[dict[str, Any]] = [
    {"reason": "finish-key", "digits": "#", "duration_ms": 12_345, "bytes_sent": 197_520},
    {"reason": "closed", "close_code": 4000, "close_reason": "großer Fehler", "gap_ms": 20},
    {"reason": "connect-failed", "verb_id": "ask-name"},
]


@pytest_asyncio.fixture
async def webhooks() -> AsyncIterator[Webhooks]:
    """Hooks of a worker that shares its secret with the application."""
    config = WebhookConfig(secret=HOOK_SECRET)
    async with Webhooks(config, ssl.create_default_context()) as sender:
        yield sender


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end["reason"])
async def test_a_hook_is_genuine_and_as_the_schema_says(
    application: Application, webhooks: Webhooks, end: dict[str, Any]
) -> None:
    """The SDK checks a signature against what it makes of the body, not against what was sent."""
    body = hook_body("5b0ad4a2-7f6d-4f0b-8c55-1f2f60d7a3b9", ATTRIBUTES, name="listen", **end)
    webhooks.send(ActionHook(url=application.hook_url), body, listen_id="5b0ad4a2")
    hook = await application.event("hook")
    assert hook["faults"] == []
    assert hook["signature"] == "valid"
    assert (hook["method"], hook["type"]) == ("POST", "application/json")
    assert json.loads(hook["text"]) == body
    assert await webhooks.drain(10) == 0
    assert webhooks.counters.delivered == 1


async def test_the_schema_has_an_eye_on_it(application: Application, webhooks: Webhooks) -> None:
    body = {"call_sid": "x", "sip_status": "200", "call_status": "over", "dial_call_duration": 1.5}
    webhooks.send(ActionHook(url=application.hook_url), body, listen_id="x")
    faults = (await application.event("hook"))["faults"]
    assert {fault.split()[0] for fault in faults} == {
        "/sip_status",
        "/call_status",
        "/dial_call_duration",
    }
    await webhooks.drain(10)


async def test_a_listen_ends_with_a_hook(
    application: Application, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    signing = partial(Config, webhook=WebhookConfig(secret=HOOK_SECRET))
    monkeypatch.setattr(backends, "Config", signing)
    async with backend.worker() as worker:
        caller = await backend.new_call(tones.silence(20, RATE_HZ))
        verb = await application.verb(
            id="ask-name",
            url=application.audio_url,
            actionHook=application.hook_url,
            finishOnKey="#",
        )
        listen_id = await backend.start(caller, **verb)
        stream = await application.stream(caller.uuid)
        await stream.audio(60)
        await caller.press("#")
        hook = await application.event("hook")
        assert await worker.hooks.drain(10) == 0
    assert hook["faults"] == []
    assert hook["signature"] == "valid"
    body = json.loads(hook["text"])
    assert (body["call_sid"], body["listen_id"]) == (caller.uuid, listen_id)
    assert (body["verb_id"], body["reason"], body["digits"]) == ("ask-name", "finish-key", "#")
    assert body["dial_call_duration"] >= 1
    for key in ("direction", "from", "to", "call_id", "call_status", "sip_status"):
        assert key in body, key
    assert len(application.events("hook")) == 1
