"""What the session tells the verb's actionHook, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pylisten.session import Action, Close, Hook, Release, Session, State, hook_body
from pylisten.verb import parse_verb
from tests.unit.test_session import FRAME, message

ATTRIBUTES = {
    "callSid": "cs",
    "direction": "inbound",
    "from": "100",
    "to": "200",
    "callerId": "100",
    "callerName": "Jürgen",
    "callId": "a84b@192.0.2.4",
    "callStatus": "in-progress",
    "originatingSipIp": "192.0.2.4",
    "fsHost": "pbx1",
    "parentCallSid": None,
}


def connected(now_ms: float = 0, **verb: Any) -> Session:
    """A session with a hook, whose WebSocket is open."""
    made = parse_verb({"url": "ws://x/", "actionHook": "http://app/hook", **verb})
    session = Session("lid", made, ATTRIBUTES)
    session.start(now_ms)
    session.connected(now_ms)
    return session


def say(session: Session, ms: int) -> None:
    """Audio from the beginning of the time-line on."""
    for n in range(ms // 20):
        session.frame(n * 20 + 20, FRAME, 0, 0, n * 160)


def hooks(actions: Sequence[Action]) -> list[dict[str, object]]:
    return [dict(action.body) for action in actions if isinstance(action, Hook)]


def test_hook_tells_what_became_of_the_listen() -> None:
    """The call, the listen, and how it ended; after the close, before the slot is released."""
    session = connected(finishOnKey="#", id="ask-name", name="answer")
    say(session, 7340)
    session.digit(7360, "#", 800, False)
    close, hook, release = session.ended(7400, "finish-key")
    assert close == Close(1000, "finish-key")
    assert isinstance(hook, Hook)
    assert hook.body == {
        "call_sid": "cs",
        "direction": "inbound",
        "from": "100",
        "to": "200",
        "caller_id": "100",
        "caller_name": "Jürgen",
        "call_id": "a84b@192.0.2.4",
        "call_status": "in-progress",
        "originating_sip_ip": "192.0.2.4",
        "fs_host": "pbx1",
        "listen_id": "lid",
        "name": "answer",
        "verb_id": "ask-name",
        "reason": "finish-key",
        "digits": "#",
        "dial_call_duration": 7,
        "listen_duration_ms": 7360,
        "ws_close_code": 1000,
        "ws_close_reason": "finish-key",
        "bytes_sent": 117440,
        "gap_ms": 0,
    }
    assert release == Release()


def test_no_hook_where_none_was_asked_for() -> None:
    """The end is the same without."""
    session = Session("lid", parse_verb({"url": "ws://x/"}), ATTRIBUTES)
    session.start(0)
    session.connected(0)
    assert session.ended(0, "hangup") == [Close(1000, "hangup"), Release()]


def _disconnect(session: Session) -> list[Action]:
    session.text(0, message("disconnect"))
    return session.ended(0, "disconnect")


def _server_closes(session: Session) -> list[Action]:
    session.closed(0, 1000, "bye")
    return session.ended(0, "closed")


def _silent_switch(session: Session) -> list[Action]:
    session.command(0, "stop", "")
    return session.tick(60_000)


ENDS: list[tuple[str, Callable[[Session], list[Action]]]] = [
    ("hangup", lambda session: session.ended(0, "hangup")),
    ("transfer", lambda session: session.ended(0, "transfer")),
    ("hangup", lambda session: session.lost(0, adopted=False)),
    ("disconnect", _disconnect),
    ("closed", _server_closes),
    ("stopped", _silent_switch),
]


@pytest.mark.parametrize(("reason", "finish"), ENDS)
def test_every_end_is_told_once(reason: str, finish: Callable[[Session], list[Action]]) -> None:
    """Whatever comes after it."""
    session = connected()
    [body] = hooks(finish(session))
    assert body["reason"] == reason
    assert session.state is State.CLOSED
    later = [
        *session.ended(1, "hangup"),
        *session.lost(1, adopted=False),
        *session.tick(100_000),
        *session.closed(1, 1006, ""),
    ]
    assert later == []


def test_nothing_is_told_before_the_switch_has_confirmed_the_end() -> None:
    """Its reason may be another."""
    session = connected()
    assert hooks(session.text(0, message("disconnect"))) == []
    [body] = hooks(session.ended(0, "hangup"))
    assert body["reason"] == "hangup"


def test_failed_start_is_told() -> None:
    """No connection was open, so nothing is said of its close."""
    verb = parse_verb({"url": "ws://x/", "actionHook": "http://app/hook"})
    session = Session("lid", verb, ATTRIBUTES)
    session.start(1000)
    session.connect_failed(3500, "connection refused")
    [body] = hooks(session.ended(3600, "connect-failed"))
    assert body["reason"] == "connect-failed"
    assert (body["listen_duration_ms"], body["dial_call_duration"]) == (2500, 2)
    assert (body["bytes_sent"], body["gap_ms"]) == (0, 0)
    assert body.keys().isdisjoint({"digits", "verb_id", "ws_close_code", "ws_close_reason"})


def test_call_that_ends_while_connecting_is_told() -> None:
    """Its length is that of the call, though no audio was sent."""
    verb = parse_verb({"url": "ws://x/", "actionHook": "http://app/hook"})
    session = Session("lid", verb, ATTRIBUTES)
    session.start(1000)
    [body] = hooks(session.ended(2500, "hangup"))
    assert body["listen_duration_ms"] == 1500
    assert "ws_close_code" not in body


def test_listen_that_another_worker_adopts_is_not_over() -> None:
    """The hook is that worker's to run."""
    assert hooks(connected().lost(0, adopted=True)) == []


def test_switch_that_dies_takes_the_call_along() -> None:
    """Reason hangup, unless the end was decided before."""
    session = connected()
    [body] = hooks(session.lost(0, adopted=False))
    assert (body["reason"], body["ws_close_code"]) == ("hangup", 1001)
    assert session.reason == "hangup"
    session = connected()
    session.text(0, message("disconnect"))
    assert hooks(session.lost(0, adopted=False))[0]["reason"] == "disconnect"


@pytest.mark.parametrize(("code", "reason"), [(1000, "bye"), (4001, "no")])
def test_close_of_the_server_is_passed_on(code: int, reason: str) -> None:
    """Code and text are its own."""
    session = connected(reconnect=False)
    session.closed(0, code, reason)
    [body] = hooks(session.ended(0, "closed"))
    assert (body["ws_close_code"], body["ws_close_reason"]) == (code, reason)


def test_close_that_gave_no_reason_has_none() -> None:
    """What is absent is left out."""
    session = connected()
    session.closed(0, 1000, "")
    [body] = hooks(session.ended(0, "closed"))
    assert body["ws_close_code"] == 1000
    assert "ws_close_reason" not in body


def test_duration_ends_with_the_call_not_with_its_last_frame_on_the_way() -> None:
    """Audio that waited for the server came late."""
    session = connected()
    for n in range(100):
        session.frame(12_000, FRAME, 0, 0, n * 160)
    assert hooks(session.ended(12_000, "hangup"))[0]["listen_duration_ms"] == 2000


def test_duration_ends_when_the_end_was_decided() -> None:
    """A switch that takes its time does not make the listen longer."""
    session = connected()
    session.command(1500, "stop", "")
    [body] = hooks(session.tick(60_000))
    assert body["listen_duration_ms"] == 1500


def test_duration_of_an_adopted_listen_is_that_of_the_whole() -> None:
    """It began with another worker."""
    verb = parse_verb({"url": "ws://x/", "actionHook": "http://app/hook"})
    session = Session("lid", verb, ATTRIBUTES, resumed=True)
    session.start(60_000, 10_000)
    session.connected(60_100)
    session.command(61_000, "stop", "")
    assert hooks(session.ended(61_020, "stopped"))[0]["listen_duration_ms"] == 51_000


def test_refused_verb_has_a_hook_too() -> None:
    """It never had a session: the worker makes the body."""
    body = hook_body("lid", {"callSid": "cs", "from": None}, name="listen", reason="bad-request")
    assert body == {
        "call_sid": "cs",
        "listen_id": "lid",
        "name": "listen",
        "reason": "bad-request",
        "dial_call_duration": 0,
        "listen_duration_ms": 0,
        "bytes_sent": 0,
        "gap_ms": 0,
    }


def test_attributes_cannot_forge_what_the_listen_says_of_itself() -> None:
    """Ours win."""
    body = hook_body("lid", {"listenId": "x", "reason": "y"}, name="n", reason="closed")
    assert (body["listen_id"], body["reason"]) == ("lid", "closed")
