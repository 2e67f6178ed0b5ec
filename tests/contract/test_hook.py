"""The application is told of every end of a listen, once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.contract.backends import RATE_HZ, Backend, Caller
from tests.contract.hooks import SECRET, Hook, HookServer
from tests.support import tones
from tests.support.waiting import eventually
from tests.support.worker import Worker as ProcessWorker
from tests.support.wsserver import ListenServer, Stream, unused_port

SIGNED = {"secret": SECRET, "retry_min_s": 0.2, "retry_max_s": 0.5}
CALL = {"call_sid", "direction", "from", "to", "call_id", "call_status", "sip_status"}


@dataclass(frozen=True)
class End:
    """How a listen is brought to an end, and what the hook says of it."""

    act: Callable[[Backend, Caller, Stream], Awaitable[object]] | None = None
    verb: dict[str, Any] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)


def closed_by_us(reason: str) -> dict[str, Any]:
    return {"ws_close_code": 1000, "ws_close_reason": reason}


ENDS = {
    "disconnect": End(lambda b, c, s: s.disconnect(), told=closed_by_us("disconnect")),
    "closed": End(
        lambda b, c, s: s.websocket.close(1000, "good-bye"), told=closed_by_us("good-bye")
    ),
    "finish-key": End(
        lambda b, c, s: c.press("#"),
        {"finishOnKey": "*#"},
        {"digits": "#", **closed_by_us("finish-key")},
    ),
    "max-length": End(verb={"maxLength": 0.6}, told=closed_by_us("max-length")),
    "silence": End(verb={"timeout": 0.6}, told=closed_by_us("silence")),
    "stopped": End(
        lambda b, c, s: b.api(f"uuid_listen {c.uuid} stop"), told=closed_by_us("stopped")
    ),
    "hangup": End(lambda b, c, s: c.hang_up(), told=closed_by_us("hangup")),
}


async def bring_about(backend: Backend, reason: str, end: End, application: HookServer) -> str:
    """Starts a listen and ends it; returns its id."""
    caller = await backend.new_call(tones.silence(20, RATE_HZ))
    async with ListenServer() as server:
        verb = {"id": f"verb-{reason}", "actionHook": application.url, **end.verb}
        listen_id = await backend.start(caller, server.url, **verb)
        stream = await server.stream_of(caller.uuid)
        await stream.audio(0.2)
        if end.act:
            await end.act(backend, caller, stream)
        event = await backend.events.wait("listen::end", Listen_ID=listen_id)
        assert event["Listen-Reason"] == reason
        await stream.wait_closed()
    await told_of(application, listen_id)
    (hook,) = [hook.body for hook in hooks_of(application, listen_id)]
    assert hook["reason"] == reason
    assert (hook["call_sid"], hook["verb_id"]) == (caller.uuid, verb["id"])
    assert {key: hook[key] for key in end.told} == end.told
    assert ("digits" in hook) == (reason == "finish-key")
    assert hook["listen_duration_ms"] == pytest.approx(int(event["Listen-Duration-Ms"]), abs=60)
    assert hook["dial_call_duration"] == hook["listen_duration_ms"] // 1000
    assert hook["bytes_sent"] == sum(len(frame.data) for frame in stream.frames)
    assert hook["gap_ms"] <= hook["listen_duration_ms"]
    return listen_id


def hooks_of(application: HookServer, listen_id: str) -> list[Hook]:
    return [h for h in application.hooks if h.headers["Pylisten-Delivery"] == listen_id]


async def told_of(application: HookServer, listen_id: str) -> None:
    async def told() -> bool:
        return bool(hooks_of(application, listen_id))

    await eventually(told, 10, f"the hook of {listen_id}")


async def never_connected(backend: Backend, application: HookServer) -> str:
    caller = await backend.new_call(tones.silence(20, RATE_HZ))
    nowhere = f"ws://127.0.0.1:{unused_port()}/"
    listen_id = await backend.start(caller, nowhere, actionHook=application.url)
    await told_of(application, listen_id)
    (hook,) = [hook.body for hook in hooks_of(application, listen_id)]
    assert (hook["reason"], hook["bytes_sent"]) == ("connect-failed", 0)
    assert "ws_close_code" not in hook
    return listen_id


async def refused(backend: Backend, application: HookServer) -> str:
    """A verb with a fault has a hook all the same."""
    caller = await backend.new_call(tones.silence(20, RATE_HZ))
    said = await backend.api(
        f"uuid_listen {caller.uuid} start ws://127.0.0.1:1/ colour=red actionHook={application.url}"
    )
    assert said.startswith("-ERR BAD_REQUEST colour: unknown property")
    start = await backend.events.wait("listen::start", Unique_ID=caller.uuid)
    await told_of(application, start["Listen-ID"])
    (hook,) = [hook.body for hook in hooks_of(application, start["Listen-ID"])]
    assert (hook["reason"], hook["listen_duration_ms"]) == ("bad-request", 0)
    return start["Listen-ID"]


async def test_every_end_is_told_once(backend: Backend) -> None:
    """Signed, as the schema says, and with what is known of the end."""
    async with HookServer() as application, backend.worker(webhook=SIGNED) as worker:
        ids = await asyncio.gather(
            never_connected(backend, application),
            *(bring_about(backend, reason, end, application) for reason, end in ENDS.items()),
        )
        ids.append(await refused(backend, application))
        await backend.slots_are_free()
        counters = worker.hooks.counters
        assert (counters.delivered, counters.failed, counters.retried) == (len(ids), 0, 0)
    assert sorted(h.headers["Pylisten-Delivery"] for h in application.hooks) == sorted(ids)
    for hook in application.hooks:
        assert hook.method == "POST"
        assert hook.headers["Content-Type"] == "application/json"
        assert hook.genuine
        assert hook.faults() == []
        assert hook.body["listen_id"] == hook.headers["Pylisten-Delivery"]
        assert set(hook.body) >= CALL


async def test_a_listen_that_moves_is_told_of_once(backend: Backend, server: ListenServer) -> None:
    """By the worker that serves it at its end."""
    async with HookServer() as application, backend.worker("old") as old:
        caller = await backend.new_call(tones.silence(20, RATE_HZ))
        listen_id = await backend.start(caller, server.url, actionHook=application.url)
        await (await server.stream(0)).audio(0.2)
        async with backend.worker("new") as new:
            assert (await backend.api("listen drain old")).startswith("+OK")
            await (await server.stream(1)).audio(0.2)
            await caller.hang_up()
            await told_of(application, listen_id)
            await backend.slots_are_free()
            delivered = [worker.hooks.counters.delivered for worker in (old, new)]
    assert delivered == [0, 1]
    (hook,) = application.hooks
    assert (hook.body["reason"], hook.body["listen_id"]) == ("hangup", listen_id)
    assert hook.body["listen_duration_ms"] >= 400, "of the whole listen"


async def test_a_hook_may_be_a_get_with_a_password(backend: Backend, server: ListenServer) -> None:
    action_hook = {"method": "GET", "username": "u", "password": "p"}
    async with HookServer() as application, backend.worker(webhook=SIGNED):
        caller = await backend.new_call(tones.silence(20, RATE_HZ))
        hook_url = f"{application.url}?tenant=blue"
        await backend.start(caller, server.url, actionHook={"url": hook_url, **action_hook})
        await (await server.stream(0)).disconnect()
        hook = await application.hook()
    assert (hook.method, hook.headers["Authorization"]) == ("GET", "Basic dTpw")
    assert hook.content.startswith(b"tenant=blue&")
    assert b"&reason=disconnect&" in hook.content
    assert hook.genuine


async def test_an_application_that_fails_is_asked_again_and_then_given_up(
    backend: Backend, server: ListenServer, caplog: pytest.LogCaptureFixture
) -> None:
    """What could not be delivered stands in the log, whole, and is counted."""
    tries = {**SIGNED, "attempts": 3, "retry_min_s": 0.05}
    async with (
        HookServer([503, 503, 500, 500, 200]) as application,
        backend.worker(webhook=tries) as worker,
    ):
        caller = await backend.new_call(tones.silence(20, RATE_HZ))
        for number in (0, 1):
            await backend.start(caller, server.url, actionHook=application.url, id=f"v{number}")
            await (await server.stream(number)).disconnect()

            async def settled(done: int = number + 1) -> bool:
                counters = worker.hooks.counters
                return counters.delivered + counters.failed == done

            await eventually(settled, 10, "the hook is delivered, or has failed")
        counters = worker.hooks.counters
    assert (counters.delivered, counters.failed, counters.retried) == (1, 1, 3)
    assert [hook.body["verb_id"] for hook in application.hooks] == ["v0"] * 3 + ["v1"] * 2
    assert len({hook.content for hook in application.hooks}) == 2, "each try says the same"
    errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "its hook is not delivered" in errors[0]
    assert errors[0].endswith(application.hooks[0].content.decode())


async def test_a_worker_that_is_told_to_end_delivers_first(
    backend: Backend, server: ListenServer
) -> None:
    """SIGTERM, while a hook waits for its next try and while a call goes on."""
    worker = ProcessWorker(
        backend, "w1", PYLISTEN_WEBHOOK_SECRET=SECRET, PYLISTEN_WEBHOOK_RETRY_MIN_S="1"
    )
    async with HookServer([503, 200]) as application:
        try:
            await worker.start()
            over, live = [await backend.new_call(tones.silence(20, RATE_HZ)) for _ in range(2)]
            for caller in (over, live):
                await backend.start(caller, server.url, actionHook=application.url)
                await (await server.stream_of(caller.uuid)).audio(0.1)
            await over.hang_up()
            await application.hook(1)
            worker.child.process.terminate()
            await worker.child.wait_line_with("draining: 1 listens to finish", 10)
            stream = await server.stream_of(live.uuid)
            await stream.audio(stream.seconds + 0.2)
            assert not stream.closed.is_set(), "a call goes on while its worker drains"
            await live.hang_up()
            assert await worker.child.wait_end(15) == 0
        finally:
            await worker.remove()
    told = [(hook.body["call_sid"], hook.body["reason"]) for hook in application.hooks]
    assert sorted(told) == sorted([(over.uuid, "hangup")] * 2 + [(live.uuid, "hangup")])
    assert all(hook.genuine for hook in application.hooks)
