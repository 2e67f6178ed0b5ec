"""The session when its connection is lost: tries, what is kept, and what the server gets then."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylisten.errors import WireError
from pylisten.session import (
    Action,
    Close,
    CloseFlow,
    Connect,
    Decode,
    Discard,
    Emit,
    End,
    Flush,
    Hook,
    Log,
    OpenFlow,
    Release,
    SendBinary,
    SendText,
    Session,
    State,
    Trim,
    Write,
)
from pylisten.verb import parse_verb
from tests.unit.test_session import (
    ATTRIBUTES,
    clip,
    emitted,
    end,
    mark,
    message,
    play,
    play_audio,
    play_done,
    status,
    streaming,
    texts,
    write,
)

KEEP = Trim(9500)  # of a ring that holds 10 s
ONE_TRY = {"attempts": 1, "maxDelay": 10}


def audio(n: int) -> bytes:
    """The n-th frame of a listen, 20 ms at 8000 Hz; each is different."""
    return n.to_bytes(2, "little") * 160


def talking(jitter: Callable[[], float] = lambda: 1.0, **verb: Any) -> Session:
    """A session whose WebSocket is open; its pauses between tries are not shortened."""
    made = parse_verb({"url": "wss://bot.example/call", **verb})
    session = Session("lid", made, ATTRIBUTES, jitter=jitter)
    session.start(0)
    session.connected(0)
    session.play_status(0, status(0, 0))
    return session


def say(session: Session, frames: Iterable[int]) -> list[Action]:
    """The caller speaks; each frame comes when it was said."""
    return [
        action for n in frames for action in session.frame(n * 20 + 20, audio(n), 0, 0, n * 160)
    ]


def lost(session: Session, now_ms: float = 0, undelivered: Sequence[str | bytes] = ()) -> Session:
    """The connection breaks."""
    session.closed(now_ms, 1006, "", undelivered)
    assert session.state is State.RECONNECTING
    return session


def until_try(session: Session, now_ms: float, patience_ms: float = 20_000) -> float | None:
    """Ticks until the session connects, and says when; None if it never does."""
    for late_ms in range(0, int(patience_ms), 10):
        actions = session.tick(now_ms + late_ms)
        for action in actions:
            if isinstance(action, Trim):
                session.trimmed(now_ms + late_ms, 0)
        if any(isinstance(action, Connect) for action in actions):
            return now_ms + late_ms
        if any(isinstance(action, End) for action in actions):
            return None
    return None


def again(session: Session, now_ms: float = 0) -> list[Action]:
    """Ticks until the next try, which succeeds; returns what is done then."""
    try_ms = until_try(session, now_ms)
    assert try_ms is not None
    return session.connected(try_ms)


def binaries(actions: Iterable[Action]) -> list[bytes]:
    return [action.data for action in actions if isinstance(action, SendBinary)]


def resumed(actions: Sequence[Action]) -> dict[str, int]:
    """The data of the one `resumed` frame there is."""
    frame = texts(actions)[1]
    assert frame["type"] == "resumed"
    data: dict[str, int] = frame["data"]
    return data


def the_end(actions: Iterable[Action]) -> End:
    [over] = [action for action in actions if isinstance(action, End)]
    return over


# The loss.


@pytest.mark.parametrize("code", [None, 1001, 1006, 1011, 1012, 4001])
def test_lost_connection_is_tried_again(code: int | None) -> None:
    """The flow is closed at once, and an event tells why."""
    session = talking()
    close_flow, emit = session.closed(0, code, "")
    assert close_flow == CloseFlow()
    assert isinstance(emit, Emit)
    assert emit.event == "reconnect"
    assert emit.headers["Listen-Attempt"] == "1"
    assert session.state is State.RECONNECTING


def test_event_tells_how_the_connection_was_lost() -> None:
    """In words; what the server said is quoted."""
    assert emitted(talking().closed(0, 1006, "")) == [
        ("reconnect", {"Listen-Attempt": "1", "Listen-Error": "the connection broke"})
    ]
    because = "the connection was closed with 1012 (restart)"
    assert emitted(talking().closed(0, 1012, "restart")) == [
        ("reconnect", {"Listen-Attempt": "1", "Listen-Error": because})
    ]


def test_server_that_closes_with_1000_has_finished() -> None:
    """It is not called again."""
    session = talking()
    assert session.closed(0, 1000, "") == [end("closed", close_reason=""), Discard()]


def test_nothing_is_tried_where_the_verb_forbids_it() -> None:
    """`"reconnect": false`: every loss is the end."""
    session = talking(reconnect=False)
    assert the_end(session.closed(0, 1011, "")).reason == "closed"
    assert session.tick(60_000)[-1] == Release()


def test_first_connection_is_not_tried_again() -> None:
    """Nothing stood that could be lost."""
    session = Session("lid", parse_verb({"url": "ws://x/"}), ATTRIBUTES)
    session.start(0)
    assert the_end(session.connect_failed(0, "connection refused")).reason == "connect-failed"


def test_our_own_close_is_no_loss() -> None:
    """After the end was decided, or confirmed, the connection may go."""
    session = talking()
    session.text(0, message("disconnect"))
    assert session.closed(0, 1006, "", [audio(0)]) == []
    session = talking()
    session.ended(0, "hangup")
    assert session.closed(0, 1006, "") == []


# Tries.


def test_pauses_double_from_a_quarter_of_a_second() -> None:
    """Five tries at once refused take up most of the ten seconds."""
    session = lost(talking())
    now_ms, pauses_ms = 0.0, []
    while (try_ms := until_try(session, now_ms)) is not None:
        pauses_ms.append(try_ms - now_ms)
        now_ms = try_ms
        if session.connect_failed(now_ms, "refused")[0] != Emit(
            "reconnect", {"Listen-Attempt": str(len(pauses_ms) + 1), "Listen-Error": "refused"}
        ):
            break
    assert pauses_ms == [250, 500, 1000, 2000, 4000]
    assert session.state is State.ENDING


def test_jitter_takes_up_to_a_quarter_of_a_pause() -> None:
    """Listens that lost a server together come back one by one."""
    assert until_try(lost(talking(jitter=lambda: 0.0)), 0) == 190
    assert until_try(lost(talking(jitter=lambda: 0.5)), 0) == 220


def test_try_is_made_once() -> None:
    """While it is under way there is no other."""
    session = lost(talking())
    assert until_try(session, 0) == 250
    assert session.tick(270) == [KEEP]
    assert session.tick(2000) == [KEEP]


def test_each_try_asks_for_the_same_connection() -> None:
    """URL, call and headers are the first one's."""
    session = talking(wsAuth={"username": "u", "password": "p"})
    lost(session)
    [connect, _] = session.tick(250)
    assert isinstance(connect, Connect)
    assert connect.url == "wss://bot.example/call"
    assert connect.call_sid == "cs"
    assert connect.headers == {"Authorization": "Basic dTpw"}


def test_used_up_tries_end_the_listen() -> None:
    """The error says how the connection was lost, and what the tries met."""
    session = talking(reconnect={"attempts": 3, "maxDelay": 10}, actionHook="http://x/")
    session.closed(0, 1012, "restart")
    now_ms = 0.0
    for error in ("connection refused", "timed out", "connection refused"):
        now_ms = until_try(session, now_ms) or 0
        actions = session.connect_failed(now_ms, error)
    lost_how = "the connection was closed with 1012 (restart); "
    met = "3 tries to connect again failed: connection refused; timed out"
    expected = end("connect-failed", error=lost_how + met, close_code=1012, close_reason="restart")
    assert actions == [expected, Discard()]
    assert session.tick(now_ms + 20) == []
    hook, release = session.ended(now_ms + 20, "connect-failed")
    assert isinstance(hook, Hook)
    assert hook.body["ws_close_code"] == 1012
    assert release == Release()


def test_single_try_is_one_try() -> None:
    """The error counts properly."""
    session = lost(talking(reconnect=ONE_TRY))
    until_try(session, 0)
    over = the_end(session.connect_failed(300, "refused"))
    assert over.error == "the connection broke; 1 try to connect again failed: refused"


def test_error_does_not_grow_with_the_tries() -> None:
    """Three different errors are enough to see what is wrong."""
    session = lost(talking(reconnect={"attempts": 6, "maxDelay": 60}))
    now_ms, actions = 0.0, list[Action]()
    for n in range(6):
        now_ms = until_try(session, now_ms) or 0
        actions = session.connect_failed(now_ms, f"e{n}")
    assert the_end(actions).error.endswith("6 tries to connect again failed: e0; e1; e2")


def test_time_for_all_tries_is_bounded() -> None:
    """A try that is not answered is given up with the listen, and closed."""
    session = lost(talking(reconnect={"attempts": 5, "maxDelay": 4}), 1000)
    assert until_try(session, 1000) == 1250
    assert session.tick(4999) == [KEEP]
    over, discard = session.tick(5000)
    assert isinstance(over, End)
    assert over.reason == "connect-failed"
    assert over.error == (
        "the connection broke; 1 try to connect again failed: "
        "no answer before the time for tries was over"
    )
    assert discard == Discard()
    assert session.connected(5001) == []
    closing = [Close(1000, "connect-failed"), Release()]
    assert session.ended(5002, "connect-failed") == closing


def test_no_try_follows_one_that_used_the_time_up() -> None:
    """What would come too late is not waited for; the last ones come the sooner."""
    session = lost(talking(reconnect={"attempts": 5, "maxDelay": 4}))
    assert until_try(session, 0) == 250
    assert isinstance(session.connect_failed(3500, "timed out")[0], Emit)
    assert until_try(session, 3500) == 3620
    assert isinstance(session.connect_failed(4000, "timed out")[0], End)


@given(
    attempts=st.integers(1, 1000),
    max_delay=st.floats(0.1, 1000),
    jitters=st.lists(st.floats(0, 1), min_size=1),
)
def test_every_try_has_its_turn(attempts: int, max_delay: float, jitters: list[float]) -> None:
    """If they fail at once, as many are made as were asked for, within the time."""
    made = 0
    session = talking(
        jitter=lambda: jitters[made % len(jitters)],
        reconnect={"attempts": attempts, "maxDelay": max_delay},
    )
    lost(session)
    tries = session._tries
    assert tries is not None
    now_ms = 0.0
    while session.state is State.RECONNECTING:
        assert tries._due_ms is not None
        now_ms = tries._due_ms
        assert isinstance(session.tick(now_ms)[0], Connect)
        made += 1
        session.connect_failed(now_ms, "refused")
    assert made == attempts
    assert now_ms < max_delay * 1000


def test_connection_that_breaks_soon_was_a_failed_try() -> None:
    """A server that accepts and closes is not called for ever."""
    session = talking()
    now_ms, tries = 1_000_000.0, 0
    for _ in range(20):
        actions = session.closed(now_ms, 1011, "")
        if session.state is State.ENDING:
            break
        assert emitted(actions)[0][1]["Listen-Attempt"] == str(tries + 1)
        now_ms = until_try(session, now_ms) or 0
        session.connected(now_ms)
        tries += 1
    assert tries == 5
    over = the_end(actions)
    assert over.reason == "connect-failed"
    assert "5 tries to connect again failed: the connection was closed with 1011" in over.error


def test_connection_that_stood_makes_the_next_loss_a_new_one() -> None:
    """All tries and all time are there again."""
    session = talking(reconnect={"attempts": 1, "maxDelay": 1})
    now_ms = 0.0
    for _ in range(5):
        lost(session, now_ms)
        now_ms = until_try(session, now_ms) or 0
        session.connected(now_ms)
        now_ms += 10_000
    assert session.counters.reconnects == 5


def test_errors_of_an_earlier_loss_are_forgotten() -> None:
    """They were overcome."""
    session = lost(talking())
    now_ms = until_try(session, 0) or 0
    session.connect_failed(now_ms, "old")
    again(session, now_ms)
    lost(session, 60_000)
    now_ms = 60_000.0
    while session.state is State.RECONNECTING:
        now_ms = until_try(session, now_ms) or 0
        actions = session.connect_failed(now_ms, "new")
    assert the_end(actions).error.endswith("5 tries to connect again failed: new")


def test_time_does_not_run_while_a_connection_stands() -> None:
    """Only what the tries take counts."""
    session = talking(reconnect={"attempts": 5, "maxDelay": 4})
    lost(session)
    again(session)  # after 250 ms
    lost(session, 9000)
    assert until_try(session, 9000) == 9500
    assert session.tick(12_740) == [KEEP]
    assert isinstance(session.tick(12_750)[0], End)


# What the new connection gets.


def test_server_is_told_that_it_goes_on() -> None:
    """First frame, position, and then the flow."""
    session = talking(metadata={"tenant": 7})
    say(session, range(3))
    actions = again(lost(session))
    first, told = texts(actions)
    assert first["resumed"] is True
    assert first["tenant"] == 7
    assert told == {
        "type": "resumed",
        "data": {"gapMilliseconds": 0, "positionMilliseconds": 60},
    }
    assert actions[2] == OpenFlow()
    assert session.state is State.STREAMING


def test_connection_is_an_event_that_says_that_it_is_not_the_first() -> None:
    """With the gap, in milliseconds."""
    session = lost(talking())
    session.tick(0)
    session.trimmed(0, 800)
    headers = {
        "Listen-Url": "wss://bot.example/call",
        "Listen-Resumed": "true",
        "Listen-Gap-Ms": "100",
    }
    assert emitted(again(session)) == [("connect", headers)]


def test_undelivered_frames_come_again_in_order() -> None:
    """Texts and audio as they were; the position is that of the first audio."""
    session = talking(passDtmf=True)
    say(session, range(10))
    [digit] = [a for a in session.digit(200, "5", 800, False) if isinstance(a, SendText)]
    say(session, range(10, 12))
    lost(session, 300, [audio(8), audio(9), digit.text, audio(10), audio(11)])
    first, told, *replay, flow, _ = again(session, 300)
    assert resumed([first, told]) == {"gapMilliseconds": 0, "positionMilliseconds": 160}
    assert replay == [
        SendBinary(audio(8)),
        SendBinary(audio(9)),
        digit,
        SendBinary(audio(10)),
        SendBinary(audio(11)),
    ]
    assert flow == OpenFlow()
    assert session.counters.frames_replayed == 4


def test_frames_that_opened_the_lost_connection_are_not_sent_again() -> None:
    """They are made anew: a connection has one first frame."""
    session = talking()
    session.command(0, "send", "hello")
    [first] = [
        json.dumps(frame, separators=(",", ":"))
        for frame in texts(again(lost(talking())))
        if "sampleRate" in frame
    ]
    opening = first.replace(',"resumed":true', "")
    lost(session, 0, [opening, "hello"])
    assert session.counters.texts_sent == 0
    sent = [action.text for action in again(session) if isinstance(action, SendText)]
    assert [json.loads(text).get("type") for text in sent[:2]] == [None, "resumed"]
    assert sent[2:] == ["hello"]


def test_all_that_is_audio_is_counted_once() -> None:
    """What did not arrive was not sent; sent again it was."""
    session = talking()
    say(session, range(10))
    lost(session, 200, [audio(7), audio(8), audio(9)])
    counters = session.counters
    assert (counters.frames_sent, counters.bytes_sent, counters.samples_sent) == (7, 2240, 1120)
    again(session, 200)
    assert (counters.frames_sent, counters.bytes_sent, counters.samples_sent) == (10, 3200, 1600)
    assert counters.reconnects == 1


def test_texts_are_counted_once() -> None:
    """The first frame of each connection, and what was sent again."""
    session = talking()
    session.command(0, "send", "a")
    session.command(0, "send", "b")
    assert session.counters.texts_sent == 3
    lost(session, 0, ["b"])
    assert session.counters.texts_sent == 2
    again(session)
    assert session.counters.texts_sent == 5


def test_undelivered_frames_of_a_second_loss_keep_their_position() -> None:
    """What was replayed and lost again is replayed again."""
    session = talking()
    say(session, range(10))
    lost(session, 200, [audio(8), audio(9)])
    actions = again(session, 200)
    assert binaries(actions) == [audio(8), audio(9)]
    hello = [a.text for a in actions if isinstance(a, SendText)]
    lost(session, 500, [*hello, audio(8), audio(9)])
    actions = again(session, 500)
    assert binaries(actions) == [audio(8), audio(9)]
    assert len(texts(actions)) == 2
    assert resumed(actions)["positionMilliseconds"] == 160


def test_position_of_frames_before_a_dropped_part_is_known() -> None:
    """Frames that a pause left out lie between those that were sent."""
    session = talking()
    say(session, range(5))
    session.command(100, "pause", "drop")
    say(session, range(5, 50))
    session.command(1000, "resume", "")
    say(session, range(50, 52))
    undelivered = [audio(3), audio(4), audio(50), audio(51)]
    assert resumed(again(lost(session, 1040, undelivered), 1040))["positionMilliseconds"] == 60
    session = talking()
    say(session, range(5))
    session.command(100, "pause", "drop")
    say(session, range(5, 50))
    session.command(1000, "resume", "")
    say(session, range(50, 52))
    assert resumed(again(lost(session, 1040, [audio(51)]), 1040))["positionMilliseconds"] == 1020


def test_stereo_positions_count_samples_of_one_track() -> None:
    """A frame has twice the bytes for the same time."""
    session = talking(mixType="stereo")
    frame = audio(1) + audio(2)
    for n in range(5):
        session.frame(0, frame, 0, 0, n * 160)
    actions = again(lost(session, 0, [frame, frame]))
    assert resumed(actions)["positionMilliseconds"] == 60
    assert session.counters.samples_sent == 800


def test_adopted_listen_that_is_lost_before_any_frame_knows_no_position() -> None:
    """Nothing is invented: the first frame says that it is resumed, and that is all."""
    session = Session("lid", parse_verb({"url": "ws://x/"}), ATTRIBUTES, resumed=True)
    session.start(0)
    session.connected(0)
    lost(session)
    session.tick(0)
    session.trimmed(0, 160)
    [first] = texts(again(session))
    assert first["resumed"] is True


def test_adopted_listen_knows_the_position_from_its_frames() -> None:
    """They carry it."""
    session = Session("lid", parse_verb({"url": "ws://x/"}), ATTRIBUTES, resumed=True)
    session.start(0)
    session.connected(0)
    session.frame(0, audio(0), 0, 0, 16_000)
    assert resumed(again(lost(session)))["positionMilliseconds"] == 2020


# The ring meanwhile.


def test_ring_is_kept_from_filling_up() -> None:
    """Half a second of it stays free."""
    session = lost(talking())
    assert session.tick(20) == [Trim(9500)]
    short = Session("lid", parse_verb({"url": "ws://x/"}), ATTRIBUTES, ring_ms=400)
    short.start(0)
    short.connected(0)
    assert lost(short).tick(20) == [Trim(200)]


def test_ring_is_left_alone_while_the_connection_stands() -> None:
    """Before a loss, and after it."""
    session = talking()
    assert session.tick(20) == []
    again(lost(session, 20), 20)
    assert session.tick(1000) == []


def test_gap_is_what_was_given_up() -> None:
    """Told to the server, to the switch and to the hook; the position moves on by it."""
    session = talking(actionHook="http://x/")
    say(session, range(5))
    lost(session, 100)
    for samples in (0, 160, 320):
        session.tick(120)
        assert session.trimmed(120, samples) == []
    assert resumed(again(session, 120)) == {"gapMilliseconds": 60, "positionMilliseconds": 160}
    assert the_end(session.command(500, "stop", "")).gap_ms == 60
    [_, hook, _] = session.ended(520, "stopped")
    assert isinstance(hook, Hook)
    assert hook.body["gap_ms"] == 60


def test_undelivered_audio_is_given_up_before_what_the_ring_gives_up() -> None:
    """It is older; texts stay."""
    session = talking()
    say(session, range(10))
    lost(session, 200, [audio(8), '"text"', audio(9)])
    session.tick(220)
    session.trimmed(220, 0)
    session.tick(240)
    session.trimmed(240, 160)
    actions = again(session, 240)
    assert binaries(actions) == []
    assert SendText('"text"') in actions
    assert resumed(actions) == {"gapMilliseconds": 60, "positionMilliseconds": 220}
    counters = session.counters
    assert (counters.frames_given_up, counters.samples_given_up) == (2, 480)
    assert counters.frames_replayed == 0


def test_undelivered_audio_stays_while_nothing_is_given_up() -> None:
    """An answer of 0 is no loss."""
    session = talking()
    say(session, range(2))
    lost(session, 40, [audio(1)])
    session.tick(60)
    session.trimmed(60, 0)
    assert binaries(again(session, 60)) == [audio(1)]


def test_each_gap_is_told_once() -> None:
    """The next `resumed` frame counts from the last one that arrived; the end counts all."""
    session = lost(talking())
    session.tick(0)
    session.trimmed(0, 800)
    again(session)
    lost(session, 20_000)
    session.tick(20_000)
    session.trimmed(20_000, 160)
    assert resumed(again(session, 20_000))["gapMilliseconds"] == 20
    assert the_end(session.command(20_500, "stop", "")).gap_ms == 120


def test_gap_that_the_server_did_not_learn_is_told_again() -> None:
    """The `resumed` frame was lost with its connection."""
    session = lost(talking())
    session.tick(0)
    session.trimmed(0, 800)
    hello = [a.text for a in again(session) if isinstance(a, SendText)]
    for undelivered in (hello, hello[1:]):
        lost(session, 20_000, undelivered)
        actions = again(session, 20_000)
        assert resumed(actions)["gapMilliseconds"] == 100
        hello = [a.text for a in actions if isinstance(a, SendText)]


def test_frame_that_comes_after_the_loss_is_kept() -> None:
    """The batch that was under way is not thrown away."""
    session = lost(talking())
    assert session.frame(0, audio(0), 0, 0, 0) == []
    actions = again(session)
    assert binaries(actions) == [audio(0)]
    assert resumed(actions)["positionMilliseconds"] == 0


# The call meanwhile.


def test_clips_play_on_and_are_reported_later() -> None:
    """Their events come at once, their frames when the server is back."""
    session = talking()
    play(session, "a", 40)
    lost(session, 20)
    actions = session.play_status(60, status(40, 40))
    assert texts(actions) == []
    assert [event for event, _ in emitted(actions)] == ["play_start", "play_done"]
    assert texts(again(session, 60))[2:] == [play_done("a", 40, "done")]


def test_clip_that_was_being_decoded_is_played() -> None:
    """And one that cannot be is answered, late."""
    session = talking()
    [good] = session.text(0, play_audio("good"))
    [bad] = session.text(0, play_audio("bad"))
    assert isinstance(good, Decode)
    assert isinstance(bad, Decode)
    lost(session)
    [piece] = session.clip_decoded(0, good.ticket, clip(20))
    assert isinstance(piece, Write)
    assert write(session, [piece]) == 20
    assert session.clip_decoded(0, bad.ticket, WireError("bad-audio", "no", "bad")) == []
    error = {"type": "error", "data": {"code": "bad-audio", "message": "no", "id": "bad"}}
    assert texts(again(session))[2:] == [error]


def test_marks_and_digits_wait_in_order() -> None:
    """Nothing that the server asked for is forgotten."""
    session = talking(passDtmf=True)
    play(session, "a", 40)
    session.text(0, message("mark", name="m"))
    lost(session)
    actions = session.digit(0, "7", 800, False)
    assert texts(actions) == []
    assert [event for event, _ in emitted(actions)] == ["dtmf"]
    session.play_status(0, status(40, 40))
    assert texts(again(session))[2:] == [
        {"event": "dtmf", "dtmf": "7", "duration": "800"},
        play_done("a", 40, "done"),
        mark("m", "playout"),
    ]


def test_texts_that_wait_are_bounded() -> None:
    """The newest thousand; the loss is counted, and logged once."""
    session = talking()
    say(session, range(1))
    lost(session, 0, [audio(0), "old"])
    logs = [action for n in range(1002) for action in session.command(0, "send", str(n))]
    [log] = logs
    assert isinstance(log, Log)
    assert log.level == "warning"
    actions = again(session)
    sent = [action.text for action in actions if isinstance(action, SendText)][2:]
    assert sent == [str(n) for n in range(2, 1002)]
    assert binaries(actions) == [audio(0)]
    assert session.counters.texts_dropped == 3


def test_texts_that_are_dropped_in_another_loss_are_logged_again() -> None:
    """Each loss is a matter of its own."""
    session = talking()
    for now_ms in (0, 20_000):
        lost(session, now_ms)
        logs = [log for n in range(1002) for log in session.command(now_ms, "send", str(n))]
        assert len(logs) == 1
        again(session, now_ms)


def test_operator_can_kill_playback_meanwhile() -> None:
    """The ring is there all the time."""
    session = talking()
    play(session, "a", 40)
    assert lost(session).command(0, "kill", "") == [Flush()]


# Ends meanwhile.


@pytest.mark.parametrize("trying", [False, True])
def test_stop_ends_a_listen_that_reconnects(trying: bool) -> None:
    """At once; a try that is under way is closed when the switch confirms."""
    session = talking()
    say(session, range(2))
    lost(session, 40, [audio(1), "text"])
    if trying:
        until_try(session, 40)
    over, discard = session.command(400, "stop", "")
    expected = end("stopped", close_code=1006, close_reason="", bytes_sent=320, gap_ms=20)
    assert over == expected
    assert discard == Discard()
    assert session.connected(410) == []
    closing = [Close(1000, "stopped")] if trying else []
    assert session.ended(420, "stopped") == [*closing, Release()]
    assert (session.counters.frames_given_up, session.counters.texts_dropped) == (1, 1)


def test_finish_key_ends_a_listen_that_reconnects() -> None:
    """The digit goes to the switch."""
    session = lost(talking(finishOnKey="#"))
    over = the_end(session.digit(0, "#", 800, False))
    assert (over.reason, over.digits) == ("finish-key", "#")


def test_max_length_ends_a_listen_that_reconnects() -> None:
    """By the clock, as no audio flows."""
    session = talking(maxLength=3)
    say(session, range(10))
    lost(session, 2900)
    assert session.tick(2990) == [KEEP]
    assert the_end(session.tick(3000)).reason == "max-length"


def test_hang_up_does_not_stop_the_tries() -> None:
    """The rest of the audio is sent first; the end comes behind it."""
    session = talking(actionHook="http://x/")
    say(session, range(5))
    lost(session, 100)
    assert OpenFlow() in again(session, 100)
    session.frame(5000, audio(5), 0, 0, 5 * 160)
    close, hook, release = session.ended(5000, "hangup")
    assert (close, release) == (Close(1000, "hangup"), Release())
    assert isinstance(hook, Hook)
    assert hook.body["listen_duration_ms"] == 120


def test_switch_that_ends_at_once_is_believed() -> None:
    """A slot that was taken back has nothing more to give."""
    session = talking(actionHook="http://x/")
    say(session, range(5))
    lost(session, 100, [audio(4)])
    hook, release = session.ended(200, "hangup")
    assert isinstance(hook, Hook)
    assert hook.body["reason"] == "hangup"
    assert hook.body["ws_close_code"] == 1006
    assert (hook.body["bytes_sent"], hook.body["gap_ms"]) == (1280, 20)
    assert release == Release()


@pytest.mark.parametrize("adopted", [True, False])
def test_worker_that_leaves_while_it_reconnects(adopted: bool) -> None:
    """There is nothing to close but a try."""
    session = lost(talking(actionHook="http://x/"))
    hooks = [action for action in session.lost(0, adopted) if isinstance(action, Hook)]
    assert len(hooks) == (0 if adopted else 1)
    assert session.state is State.CLOSED


def test_messages_come_from_the_new_connection() -> None:
    """What is read from the old one is over; the new one is as good as the first."""
    session = lost(streaming())
    assert session.text(0, play_audio("a")) == []
    again(session)
    assert isinstance(session.text(1000, play_audio("a"))[0], Decode)
