"""The state machine of one listen: every rule of the verb, without a socket, a ring or a clock."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pylisten.audio import Clip
from pylisten.errors import WireError
from pylisten.session import (
    TRANSITIONS,
    Action,
    Close,
    Connect,
    Decode,
    Discard,
    Emit,
    End,
    Event,
    Flush,
    Log,
    OpenFlow,
    Release,
    SendBinary,
    SendText,
    Session,
    State,
    Write,
    mermaid,
)
from pylisten.shm import TICKS_HZ, PlayStatus
from pylisten.shm import Flush as Flushed
from pylisten.verb import parse_verb

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "session.md"

FRAME = b"\1\0" * 160  # 20 ms at 8000 Hz
TICKS_PER_MS = TICKS_HZ // 1000


def make(**verb: Any) -> Session:
    return Session("lid", parse_verb({"url": "wss://bot.example/call?t=1", **verb}), ATTRIBUTES)


ATTRIBUTES = {"callSid": "cs", "from": "100"}


def streaming(**verb: Any) -> Session:
    """A session whose WebSocket is open, and whose playback ring is empty."""
    session = make(**verb)
    session.start(0)
    session.connected(0)
    session.play_status(0, status(0, 0))
    return session


def status(written_ms: int, played_ms: int, flush: tuple[int, int] = (0, 0)) -> PlayStatus:
    """The ring's positions; `flush` is where the last one took effect, and where it went on."""
    last = Flushed(0, flush[0] * TICKS_PER_MS, flush[1] * TICKS_PER_MS)
    flushes = (last, *[Flushed(0, 0, 0)] * 3)
    written, played = written_ms * TICKS_PER_MS, played_ms * TICKS_PER_MS
    return PlayStatus(written, played, 1 if any(flush) else 0, flushes, 1_000_000)


def message(type: str, **data: object) -> str:
    return json.dumps({"type": type, "data": data} if data else {"type": type})


def play_audio(id: str = "a", **data: object) -> str:
    content = base64.b64encode(FRAME).decode()
    raw = {"audioContentType": "raw", "sampleRate": 8000, "audioContent": content}
    return message("playAudio", **{"id": id, **raw, **data})


def clip(ms: int = 20) -> Clip:
    return Clip(8000, np.ones(ms * 8, np.int16))


def write(session: Session, actions: Sequence[Action]) -> int:
    """Does what a worker does with each Write; returns the milliseconds that were written."""
    writes = [action for action in actions if isinstance(action, Write)]
    total_ms = 0
    while writes:
        [piece] = writes
        total_ms += len(piece.samples) * 1000 // piece.rate_hz
        again = session.wrote(0, len(piece.samples))
        writes = [action for action in again if isinstance(action, Write)]
    return total_ms


def play(session: Session, id: str = "a", ms: int = 20, **data: object) -> list[Action]:
    """A playAudio that is decoded and written at once; returns the actions of the message."""
    actions = session.text(0, play_audio(id, **data))
    [decode] = [action for action in actions if isinstance(action, Decode)]
    write(session, session.clip_decoded(0, decode.ticket, clip(ms)))
    return actions


def texts(actions: Sequence[Action]) -> list[Any]:
    return [json.loads(action.text) for action in actions if isinstance(action, SendText)]


def emitted(actions: Sequence[Action]) -> list[tuple[str, dict[str, str]]]:
    return [(a.event, dict(a.headers)) for a in actions if isinstance(a, Emit)]


def play_done(id: str, ms: int, reason: str) -> dict[str, Any]:
    data = {"id": id, "playbackMilliseconds": str(ms), "reason": reason}
    return {"type": "playDone", "data": data}


def mark(name: str, event: str) -> dict[str, Any]:
    return {"type": "mark", "data": {"name": name, "event": event}}


def end(reason: str, **changes: Any) -> End:
    """The End of a session that has sent nothing, and will close the WebSocket itself."""
    fields = {
        "error": "",
        "digits": "",
        "close_code": 1000,
        "close_reason": reason,
        "bytes_sent": 0,
        "gap_ms": 0,
    }
    return End(reason, **{**fields, **changes})


# The table, and its picture.


def test_diagram_in_the_documentation_is_drawn_from_the_table() -> None:
    """The page shows what the code does; `pylisten.session.mermaid()` gives the new diagram."""
    assert f"```mermaid\n{mermaid()}\n```" in PAGE.read_text(encoding="utf-8")


def test_documentation_explains_every_state_and_event() -> None:
    """Each has its row in the tables of the page."""
    page = PAGE.read_text(encoding="utf-8")
    for name in [*State, *Event]:
        assert f"\n| `{name.value}` | " in page


def test_every_state_can_be_reached_and_left() -> None:
    """No state is a trap, and none is there for nothing; closed alone is the end."""
    assert set(TRANSITIONS.values()) == set(State) - {State.NEW}
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.CLOSED}
    assert {event for _, event in TRANSITIONS} == set(Event)


# The beginning.


def test_start_connects_with_what_the_verb_says() -> None:
    """URL, credentials, own headers and the call's id go into the upgrade."""
    session = make(wsAuth={"username": "u", "password": "p"}, headers={"X-A": "b"})
    [connect] = session.start(0)
    assert isinstance(connect, Connect)
    assert connect.url == "wss://bot.example/call?t=1"
    assert connect.call_sid == "cs"
    assert connect.headers == {"X-A": "b", "Authorization": "Basic dTpw"}


def test_credentials_do_not_show_in_logs() -> None:
    """An action that is printed does not give the password away."""
    [connect] = make(wsAuth={"username": "u", "password": "p"}).start(0)
    assert "dTpw" not in repr(connect)


def test_first_text_frame_comes_before_the_flow_is_opened() -> None:
    """No audio can be sent before the server knows what it will be."""
    session = make(metadata={"tenant": 7})
    session.start(0)
    first, flow, *_ = session.connected(10)
    assert texts([first]) == [
        {
            "sampleRate": 8000,
            "mixType": "mono",
            "callSid": "cs",
            "from": "100",
            "listenId": "lid",
            "name": "listen",
            "tenant": 7,
        }
    ]
    assert flow == OpenFlow()


def test_server_is_told_when_another_worker_takes_over() -> None:
    """The first frame says that it is not the first."""
    verb = parse_verb({"url": "ws://x/"})
    session = Session("lid", verb, ATTRIBUTES, resumed=True)
    session.start(0)
    assert texts(session.connected(0))[0]["resumed"] is True


def test_connection_is_an_event_without_the_query_of_the_url() -> None:
    """`listen::connect` names the server; a query may hold a token."""
    session = make()
    session.start(0)
    event = ("connect", {"Listen-Url": "wss://bot.example/call"})
    assert emitted(session.connected(0)) == [event]


def test_failed_connection_ends_the_listen() -> None:
    """The reason and the cause go to the switch; there is nothing to close."""
    session = make()
    session.start(0)
    assert session.connect_failed(0, "connection refused") == [
        end("connect-failed", error="connection refused", close_code=None, close_reason=""),
        Discard(),
    ]
    assert session.ended(1, "connect-failed") == [Release()]


def test_call_that_ends_while_connecting() -> None:
    """Opening is given up, and the slot released."""
    session = make()
    session.start(0)
    assert session.ended(0, "hangup") == [Close(1000, "hangup"), Release()]
    assert session.connected(1) == []


# Audio to the server.


def test_frames_are_sent_as_they_come() -> None:
    """Bytes are passed on unchanged, and counted."""
    session = streaming()
    assert session.frame(0, FRAME, 100, 0, 0) == [SendBinary(FRAME)]
    assert session.frame(20, FRAME, 90, 0, 160) == [SendBinary(FRAME)]
    counters = session.counters
    assert (counters.frames_sent, counters.bytes_sent, counters.samples_sent) == (2, 640, 320)
    assert counters.peak_level == 100


def test_filled_silence_is_reported_as_gap() -> None:
    """What never came is told at the end, in milliseconds."""
    session = streaming(sampleRate=16000)
    session.frame(0, FRAME * 2, 0, 320, 0)
    session.frame(0, FRAME * 2, 0, 80, 320)
    [over, *_] = session.command(0, "stop", "")
    assert over == end("stopped", bytes_sent=1280, gap_ms=25)


def test_max_length_counts_the_time_line() -> None:
    """One second is 50 frames, however late they come; the last is sent whole."""
    session = streaming(maxLength=1)
    for n in range(49):
        assert session.frame(n * 1000, FRAME, 0, 0, n * 160) == [SendBinary(FRAME)]
    last = session.frame(0, FRAME, 0, 0, 49 * 160)
    assert last == [SendBinary(FRAME), end("max-length", bytes_sent=16000), Discard()]
    assert session.frame(0, FRAME, 0, 0, 50 * 160) == []
    assert session.counters.frames_discarded == 1


def test_max_length_counts_what_another_worker_sent() -> None:
    """The time-line of an adopted listen did not begin with this worker."""
    session = streaming(maxLength=60)
    assert session.frame(0, FRAME, 0, 0, 60 * 8000 - 320) == [SendBinary(FRAME)]
    assert session.frame(20, FRAME, 0, 0, 60 * 8000 - 160)[1:] == [
        end("max-length", bytes_sent=640),
        Discard(),
    ]


def test_max_length_counts_each_track_once() -> None:
    """A stereo frame has twice the bytes for the same time."""
    session = streaming(maxLength=0.04, mixType="stereo")
    assert session.frame(0, FRAME * 2, 0, 0, 0) == [SendBinary(FRAME * 2)]
    assert session.frame(0, FRAME * 2, 0, 0, 160)[1] == end("max-length", bytes_sent=1280)


@pytest.mark.parametrize(("length_s", "rate_hz"), [(1.1, 8000), (0.3, 48000), (4.02, 24000)])
def test_max_length_is_not_a_frame_too_long(length_s: float, rate_hz: int) -> None:
    """A length that is no whole number in binary is none the less."""
    session = streaming(maxLength=length_s, sampleRate=rate_hz)
    samples = rate_hz // 50
    last = round(length_s * 50) - 1
    assert len(session.frame(0, bytes(samples * 2), 0, 0, (last - 1) * samples)) == 1
    assert len(session.frame(0, bytes(samples * 2), 0, 0, last * samples)) > 1


def test_max_length_ends_a_listen_that_is_still_connecting() -> None:
    """It counts from the first captured sample, not from the connection."""
    session = make(maxLength=2)
    session.start(100_000, 99_900)
    assert session.tick(101_899) == []
    over = end("max-length", close_code=None, close_reason="")
    assert session.tick(101_900) == [over, Discard()]


def test_max_length_is_not_ended_by_the_clock_while_audio_flows() -> None:
    """All audio up to it is sent, however late."""
    session = streaming(maxLength=2)
    assert session.tick(5_000) == []
    assert session.state is State.STREAMING


# Digits.


def test_digits_are_not_passed_unless_asked_for() -> None:
    """passDtmf is false by default."""
    assert streaming().digit(0, "2", 1600, False) == []


@pytest.mark.parametrize(("far", "leg"), [(False, "near"), (True, "far")])
def test_digits_are_passed_from_both_ends(far: bool, leg: str) -> None:
    """The frame is jambonz's; the event says which leg it was."""
    actions = streaming(passDtmf=True).digit(0, "2", 1600, far)
    assert texts(actions) == [{"event": "dtmf", "dtmf": "2", "duration": "1600"}]
    headers = {"Listen-Digit": "2", "Listen-Digit-Duration": "1600", "Listen-Digit-Leg": leg}
    assert emitted(actions) == [("dtmf", headers)]


def test_digit_pressed_while_connecting_is_sent_after_the_first_frame() -> None:
    """A caller who is quick is heard all the same."""
    session = make(passDtmf=True)
    session.start(0)
    session.digit(0, "5", 800, False)
    frames = texts(session.connected(10))
    assert [frame.get("dtmf") for frame in frames] == [None, "5"]


@pytest.mark.parametrize("key", ["#", "*"])
def test_any_key_of_the_set_ends_the_listen(key: str) -> None:
    """finishOnKey is a set; the digit goes to the switch, and before that to the server."""
    session = streaming(finishOnKey="*#", passDtmf=True)
    actions = session.digit(0, key, 800, False)
    assert texts(actions)[0]["dtmf"] == key
    assert actions[-2:] == [end("finish-key", digits=key), Discard()]


def test_other_keys_do_not_end_the_listen() -> None:
    """Nor does a key of the far end."""
    session = streaming(finishOnKey="#")
    assert session.digit(0, "1", 800, False) == []
    assert session.digit(0, "#", 800, True) == []


def test_finish_key_while_connecting_gives_the_connection_up() -> None:
    """There is no close code, as nothing was open."""
    session = make(finishOnKey="#")
    session.start(0)
    [over, discard] = session.digit(0, "#", 800, False)
    assert over == end("finish-key", digits="#", close_code=None, close_reason="")
    assert discard == Discard()
    assert session.ended(0, "finish-key") == [Close(1000, "finish-key"), Release()]


# Clips.


def test_clip_is_decoded_elsewhere_then_written() -> None:
    """playAudio asks for decoding; the audio goes to the ring at its own rate."""
    session = streaming()
    [decode] = session.text(0, play_audio("a"))
    assert isinstance(decode, Decode)
    assert decode.play.id == "a"
    [piece] = session.clip_decoded(0, decode.ticket, clip(20))
    assert isinstance(piece, Write)
    assert (piece.rate_hz, len(piece.samples)) == (8000, 160)


def test_play_done_comes_when_the_call_has_played_it() -> None:
    """Events and frame report begin, end and length."""
    session = streaming()
    play(session, "a", 40)
    begin = session.play_status(0, status(40, 20))
    assert begin == [Emit("play_start", {"Listen-Play-ID": "a"})]
    over = session.play_status(0, status(40, 40))
    assert texts(over) == [play_done("a", 40, "done")]
    headers = {
        "Listen-Play-ID": "a",
        "Listen-Playback-Ms": "40",
        "Listen-Play-Reason": "done",
    }
    assert emitted(over) == [("play_done", headers)]


def test_clip_without_id_is_reported_without() -> None:
    """An id that was not given is not invented."""
    session = streaming()
    text = json.loads(play_audio())
    del text["data"]["id"]
    [decode] = session.text(0, json.dumps(text))
    assert isinstance(decode, Decode)
    write(session, session.clip_decoded(0, decode.ticket, clip(20)))
    actions = session.play_status(0, status(20, 20))
    assert "id" not in texts(actions)[0]["data"]
    assert emitted(actions)[0] == ("play_start", {})


def test_clips_are_played_in_the_order_they_were_sent_in() -> None:
    """Decoding may end in any order."""
    session = streaming()
    [slow] = session.text(0, play_audio("slow"))
    [quick] = session.text(0, play_audio("quick"))
    assert isinstance(slow, Decode)
    assert isinstance(quick, Decode)
    assert session.clip_decoded(0, quick.ticket, clip(20)) == []
    assert write(session, session.clip_decoded(0, slow.ticket, clip(20))) == 40
    done = texts(session.play_status(0, status(40, 40)))
    assert done == [play_done("slow", 20, "done"), play_done("quick", 20, "done")]


def test_clip_that_cannot_be_decoded_is_answered_and_skipped() -> None:
    """The error frame names the fault and the clip; what follows is played."""
    session = streaming()
    [bad] = session.text(0, play_audio("bad"))
    [good] = session.text(0, play_audio("good"))
    assert isinstance(bad, Decode)
    assert isinstance(good, Decode)
    session.clip_decoded(0, good.ticket, clip(20))
    actions = session.clip_decoded(0, bad.ticket, WireError("bad-base64", "no", "bad"))
    error = {"type": "error", "data": {"code": "bad-base64", "message": "no", "id": "bad"}}
    assert texts(actions) == [error]
    assert write(session, actions) == 20


def test_twelfth_clip_is_refused() -> None:
    """One is played, ten wait; the next is answered with an error that names it."""
    session = streaming()
    for n in range(11):
        play(session, str(n), 100)
    [error] = texts(session.text(0, play_audio("late")))
    assert (error["data"]["code"], error["data"]["id"]) == ("queue-full", "late")


def test_queue_limit_can_be_configured() -> None:
    """A limit of 1 lets one wait."""
    session = Session("lid", parse_verb({"url": "ws://x/"}), ATTRIBUTES, queue_limit=1)
    session.start(0)
    session.connected(0)
    play(session, "a")
    play(session, "b")
    assert texts(session.text(0, play_audio("c")))[0]["data"]["code"] == "queue-full"


def test_queue_play_false_interrupts() -> None:
    """The clip being played ends at once; the new one is not touched by that."""
    session = streaming()
    play(session, "old", 200)
    session.play_status(0, status(200, 40))
    actions = play(session, "new", 100, queuePlay=False)
    assert actions[0] == Flush()
    done = session.play_status(0, status(300, 300, (40, 200)))
    assert texts(done) == [play_done("old", 40, "killed"), play_done("new", 100, "done")]


@pytest.mark.parametrize(
    ("interrupt", "queue_play", "flushed"),
    [(False, None, False), (True, None, True), (False, False, True), (True, True, False)],
)
def test_default_for_queue_play_is_configured(
    interrupt: bool, queue_play: bool | None, flushed: bool
) -> None:
    """What the server says counts; where it says nothing, the configuration does."""
    session = Session("lid", parse_verb({"url": "ws://x/"}), ATTRIBUTES, interrupt=interrupt)
    session.start(0)
    session.connected(0)
    session.play_status(0, status(0, 0))
    play(session, "a", 100)
    said = {} if queue_play is None else {"queuePlay": queue_play}
    assert (Flush() in session.text(0, play_audio("b", **said))) is flushed


def test_clips_are_refused_where_the_verb_forbids_them() -> None:
    """bidirectionalAudio.enabled is false: an error frame, and nothing is decoded."""
    session = streaming(bidirectionalAudio={"enabled": False})
    [error] = texts(session.text(0, play_audio("a")))
    assert (error["data"]["code"], error["data"]["id"]) == ("not-bidirectional", "a")


def test_clips_may_be_played_in_streaming_mode() -> None:
    """They take their place in the stream."""
    session = streaming(bidirectionalAudio={"streaming": True})
    write(session, session.binary(0, FRAME))
    play(session, "a", 20)
    assert texts(session.play_status(0, status(40, 20))) == []
    assert texts(session.play_status(0, status(40, 40))) == [play_done("a", 20, "done")]


# Kills and marks.


def test_kill_audio_flushes_and_reports_what_was_heard() -> None:
    """The report comes with the flush's result; clips that never began say 0."""
    session = streaming()
    play(session, "a", 200)
    session.text(0, message("mark", name="m"))
    session.text(0, play_audio("b"))
    session.play_status(0, status(200, 60))
    assert session.text(0, message("killAudio")) == [Flush()]
    assert texts(session.play_status(0, status(200, 200, (80, 200)))) == [
        play_done("a", 80, "killed"),
        mark("m", "cleared"),
        play_done("b", 0, "killed"),
    ]


def test_clip_sent_directly_after_a_kill_is_whole() -> None:
    """Its audio is written behind the flush, and played from its first sample on."""
    session = streaming()
    play(session, "old", 200)
    session.play_status(0, status(200, 60))
    session.text(0, message("killAudio"))
    play(session, "new", 100)
    session.play_status(0, status(300, 220, (60, 200)))
    assert texts(session.play_status(0, status(300, 300, (60, 200)))) == [
        play_done("new", 100, "done")
    ]


def test_kill_does_not_wait_for_decoding() -> None:
    """A clip that is being decoded is killed where it stands, and its audio ignored."""
    session = streaming()
    [decode] = session.text(0, play_audio("slow"))
    assert isinstance(decode, Decode)
    assert texts(session.text(0, message("killAudio"))) == [play_done("slow", 0, "killed")]
    assert session.clip_decoded(0, decode.ticket, clip(20)) == []


def test_mark_is_reported_when_the_audio_before_it_was_played() -> None:
    """Not when it was written."""
    session = streaming()
    play(session, "a", 40)
    assert session.text(0, message("mark", name="m")) == []
    assert texts(session.play_status(0, status(40, 39))) == []
    assert texts(session.play_status(0, status(40, 40)))[-1] == mark("m", "playout")


def test_mark_with_nothing_to_wait_for_is_reported_at_once() -> None:
    """An empty queue has been played."""
    assert texts(streaming().text(0, message("mark", name="m"))) == [mark("m", "playout")]


def test_clear_marks_reports_each_as_cleared() -> None:
    """The audio goes on."""
    session = streaming()
    play(session, "a", 40)
    session.text(0, message("mark", name="m"))
    assert session.text(0, message("clearMarks")) == [
        SendText(json.dumps(mark("m", "cleared"), separators=(",", ":")))
    ]
    assert texts(session.play_status(0, status(40, 40))) == [play_done("a", 40, "done")]


# Streamed audio.


def test_streamed_audio_is_played_at_its_rate() -> None:
    """The rate is bidirectionalAudio's, not the listen's."""
    session = streaming(bidirectionalAudio={"streaming": True, "sampleRate": 24000})
    [piece] = session.binary(0, b"\1\0\2\0\xff\xff")
    assert isinstance(piece, Write)
    assert piece.rate_hz == 24000
    assert piece.samples.tolist() == [1, 2, -1]


def test_one_write_at_a_time() -> None:
    """The next piece is offered when the ring has answered for the last."""
    session = streaming(bidirectionalAudio={"streaming": True})
    [first] = session.binary(0, FRAME)
    assert session.binary(0, FRAME) == []
    assert session.play_status(0, status(0, 0)) == []
    [second] = session.wrote(0, 160)
    assert isinstance(first, Write)
    assert isinstance(second, Write)
    assert session.wrote(0, 160) == []


def test_full_ring_is_left_alone_until_the_call_has_played() -> None:
    """A ring that takes less than offered is offered the rest at the next look."""
    session = streaming(bidirectionalAudio={"streaming": True})
    session.binary(0, FRAME)
    assert session.wrote(0, 100) == []
    assert session.binary(0, FRAME) == []
    [rest] = session.play_status(0, status(0, 0))
    assert isinstance(rest, Write)
    assert len(rest.samples) == 60


def test_nothing_is_written_before_the_ring_is_known() -> None:
    """Another worker may have left audio there."""
    session = make(bidirectionalAudio={"streaming": True})
    session.start(0)
    session.connected(0)
    assert session.wants_play_status
    assert session.binary(0, FRAME) == []
    assert write(session, session.play_status(0, status(0, 0))) == 20


@pytest.mark.parametrize(
    ("audio", "data", "code"),
    [
        ({}, FRAME, "not-streaming"),
        ({"enabled": False}, FRAME, "not-bidirectional"),
        ({"streaming": True}, b"odd", "bad-audio"),
        ({"streaming": True}, bytes(16 * 1024 * 1024 + 2), "too-large"),
    ],
)
def test_binary_frame_that_cannot_be_played(audio: Any, data: bytes, code: str) -> None:
    """The error frame says why; nothing is played."""
    actions = streaming(bidirectionalAudio=audio).binary(0, data)
    assert [error["data"]["code"] for error in texts(actions)] == [code]
    assert len(actions) == 1


def test_refused_frames_are_answered_once_a_second_and_counted() -> None:
    """A server that streams where it may not is told, not flooded."""
    session = streaming()
    answers = [texts(session.binary(n * 20, FRAME)) for n in range(51)]
    assert [n for n, answer in enumerate(answers) if answer] == [0, 50]
    assert "refused: 1;" in answers[0][0]["data"]["message"]
    assert "refused: 50;" in answers[50][0]["data"]["message"]
    assert session.counters.binaries_refused == 51
    assert session.counters.errors_sent == 2


def test_empty_binary_frame_is_nothing() -> None:
    """It holds no audio, and is no fault."""
    assert streaming().binary(0, b"") == []


def test_server_that_sends_too_much_is_not_read() -> None:
    """Reading goes on when the call has played enough of it."""
    verb = parse_verb({"url": "ws://x/", "bidirectionalAudio": {"streaming": True}})
    session = Session("lid", verb, ATTRIBUTES, backlog_max_bytes=20_000)
    session.start(0)
    session.connected(0)
    assert session.may_read
    session.binary(0, FRAME * 100)
    assert not session.may_read
    written_ms = write(session, session.play_status(0, status(0, 0)))
    assert not session.may_read
    for played_ms in range(0, 2000, 100):
        written_ms += write(session, session.play_status(0, status(written_ms, played_ms)))
    assert session.may_read


def test_clips_that_wait_for_decoding_count_as_too_much() -> None:
    """They are in memory, twice over soon."""
    session = Session("lid", parse_verb({"url": "ws://x/"}), ATTRIBUTES, backlog_max_bytes=500)
    session.start(0)
    session.connected(0)
    [first] = session.text(0, play_audio("a"))
    assert session.may_read
    session.text(0, play_audio("b"))
    assert not session.may_read
    assert isinstance(first, Decode)
    session.clip_decoded(0, first.ticket, clip(20))
    assert session.may_read


# Other messages.


@pytest.mark.parametrize(
    ("text", "code"),
    [("{", "bad-json"), ("[]", "bad-message"), ('{"type":"mark","data":{}}', "bad-message")],
)
def test_message_that_cannot_be_read_is_answered(text: str, code: str) -> None:
    """The listen goes on."""
    session = streaming()
    [error] = texts(session.text(0, text))
    assert error["data"]["code"] == code
    assert session.state is State.STREAMING


def test_other_messages_become_events() -> None:
    """The text is passed on as it came."""
    text = '{"type":"transfer",  "to":"200"}'
    headers = {"Listen-Message-Type": "transfer", "Listen-Message": text}
    assert streaming().text(0, text) == [Emit("message", headers)]


def test_long_messages_are_cut_and_say_so() -> None:
    """An event header holds 8 KiB; it is cut between characters."""
    text = json.dumps({"type": "t" * 1000, "x": "é" * 100_000}, ensure_ascii=False)
    [(event, headers)] = emitted(streaming().text(0, text))
    assert event == "message"
    assert len(headers["Listen-Message-Type"]) == 256
    assert len(headers["Listen-Message"].encode()) in (8 * 1024, 8 * 1024 - 1)
    assert text.startswith(headers["Listen-Message"])
    assert headers["Listen-Message-Bytes"] == str(len(text.encode()))


# Operators.


def test_operator_stops_the_listen() -> None:
    """As if the server had asked, but for the reason."""
    assert streaming().command(0, "stop", "") == [end("stopped"), Discard()]


def test_operator_kills_playback() -> None:
    """The same as killAudio."""
    session = streaming()
    play(session, "a", 40)
    assert session.command(0, "kill", "") == [Flush()]


def test_operator_sends_text() -> None:
    """It goes to the server as it is."""
    assert streaming().command(0, "send", "hello") == [SendText("hello")]


def test_text_of_an_operator_waits_for_the_connection() -> None:
    """The first frame stays the first."""
    session = make()
    session.start(0)
    assert session.command(0, "send", "hello") == []
    sent = [action.text for action in session.connected(0) if isinstance(action, SendText)]
    assert sent[1:] == ["hello"]


def test_texts_that_wait_for_the_first_connection_are_bounded() -> None:
    """The newest thousand; it is logged that the others are lost."""
    session = make()
    session.start(0)
    logs = [log for n in range(1002) for log in session.command(0, "send", str(n))]
    assert [type(log) for log in logs] == [Log]
    assert session.counters.texts_dropped == 2
    assert SendText("1") not in (actions := session.connected(0))
    assert SendText("2") in actions


def test_unknown_command_is_logged() -> None:
    """It changes nothing."""
    session = streaming()
    [log] = session.command(0, "dance", "")
    assert log == Log("warning", "unknown command 'dance'")
    assert session.state is State.STREAMING


# The end.


def test_server_asks_for_the_end() -> None:
    """disconnect ends the listen; the WebSocket is closed when the switch has confirmed."""
    session = streaming()
    assert session.text(0, message("disconnect")) == [end("disconnect"), Discard()]
    assert session.ended(5, "disconnect") == [Close(1000, "disconnect"), Release()]
    assert session.state is State.CLOSED
    assert session.reason == "disconnect"


@pytest.mark.parametrize(("reconnect", "code"), [({}, 1000), (False, 1000), (False, 4001)])
def test_server_closes(reconnect: Any, code: int) -> None:
    """Code and reason are passed on; there is nothing left to close."""
    session = streaming(reconnect=reconnect)
    expected = end("closed", close_code=code, close_reason="bye")
    assert session.closed(0, code, "bye") == [expected, Discard()]
    assert session.ended(5, "closed") == [Release()]


@pytest.mark.parametrize("code", [None, 1006])
def test_broken_connection_is_an_error(code: int | None) -> None:
    """A server that vanishes has not closed."""
    [over, _] = streaming(reconnect=False).closed(0, code, "")
    expected = end("closed", error="the connection broke", close_code=code, close_reason="")
    assert over == expected


def test_call_ends_after_the_last_frame() -> None:
    """Everything has been sent by then; the close says why."""
    session = streaming()
    session.frame(0, FRAME, 0, 0, 0)
    assert session.ended(0, "hangup") == [Close(1000, "hangup"), Release()]
    assert session.reason == "hangup"


def test_clips_cut_by_the_end_say_what_was_heard() -> None:
    """The server learns it before the close; no event is fired for a listen that is gone."""
    session = streaming()
    play(session, "a", 200)
    session.text(0, message("mark", name="m"))
    session.play_status(0, status(200, 60))
    *reports, close, release = session.ended(0, "hangup")
    assert texts(reports) == [play_done("a", 60, "killed"), mark("m", "cleared")]
    assert emitted(reports) == []
    assert (close, release) == (Close(1000, "hangup"), Release())


def test_end_is_told_to_the_switch_once() -> None:
    """Whatever happens after the first reason, that one stands."""
    session = streaming(finishOnKey="#", maxLength=0.02, passDtmf=True)
    session.text(0, message("disconnect"))
    assert session.digit(0, "#", 800, False) == []
    assert session.frame(0, FRAME, 0, 0, 0) == []
    assert session.command(0, "stop", "") == []
    assert session.text(0, play_audio()) == []
    assert session.binary(0, FRAME) == []
    assert session.closed(0, 1000, "") == []
    assert session.ended(0, "") == [Release()]
    assert session.reason == "disconnect"


def test_switch_has_the_last_word_on_the_reason() -> None:
    """A caller who hung up before our end arrived has hung up."""
    session = streaming()
    session.text(0, message("disconnect"))
    assert session.ended(0, "hangup") == [Close(1000, "hangup"), Release()]
    assert session.reason == "hangup"


def test_end_without_a_reason_is_a_hang_up() -> None:
    """The call is gone, and nobody can say why."""
    assert streaming().ended(0, "") == [Close(1000, "hangup"), Release()]


def test_playback_is_followed_until_the_switch_confirms() -> None:
    """A clip that ends meanwhile is reported, to the server only; nothing more is written."""
    session = streaming()
    play(session, "a", 1000)
    session.text(0, message("disconnect"))
    assert session.wants_play_status
    assert session.play_status(0, status(400, 100)) == []
    *reports, _, _ = session.ended(0, "disconnect")
    assert texts(reports) == [play_done("a", 100, "killed")]


def test_clip_decoded_after_the_end_is_not_played() -> None:
    """Its answer comes to a listen that is closed, and does nothing."""
    session = streaming()
    [decode] = session.text(0, play_audio("a"))
    assert isinstance(decode, Decode)
    assert texts(session.ended(0, "hangup")) == [play_done("a", 0, "killed")]
    assert session.clip_decoded(0, decode.ticket, clip(20)) == []
    assert session.clip_decoded(0, decode.ticket, WireError("bad-audio", "no", "a")) == []


def test_lost_listen_is_let_go_without_a_reason() -> None:
    """It may go on with another worker: the end is not told to the switch, nor invented."""
    session = streaming()
    assert session.lost(0, adopted=True) == [Close(1001, "going away"), Release()]
    assert session.reason == ""
    assert session.ended(0, "hangup") == []


def test_switch_that_does_not_confirm_is_not_waited_for_forever() -> None:
    """After ten seconds the WebSocket is closed and the slot released all the same."""
    session = streaming()
    session.text(1000, message("disconnect"))
    assert session.tick(10_999) == []
    [log, close, release] = session.tick(11_000)
    assert isinstance(log, Log)
    assert (close, release) == (Close(1000, "disconnect"), Release())
    assert session.tick(12_000) == []


def test_nothing_happens_after_the_release() -> None:
    """Release is the last action; every later input is ignored."""
    session = streaming(passDtmf=True)
    session.ended(0, "hangup")
    late = [
        session.start(1),
        session.connected(1),
        session.connect_failed(1, "x"),
        session.frame(1, FRAME, 0, 0, 0),
        session.trimmed(1, 160),
        session.digit(1, "1", 800, False),
        session.text(1, message("disconnect")),
        session.binary(1, FRAME),
        session.command(1, "stop", ""),
        session.closed(1, 1000, ""),
        session.closed(1, 1006, "", [FRAME]),
        session.play_status(1, status(0, 0)),
        session.ended(1, "hangup"),
        session.lost(1, adopted=False),
        session.tick(100_000),
    ]
    assert late == [[]] * len(late)
    assert not session.wants_play_status


def test_counters_tell_what_happened() -> None:
    """Clips by their end, texts both ways, errors."""
    session = streaming()
    play(session, "a", 20)
    session.play_status(0, status(20, 20))
    play(session, "b", 100)
    session.text(0, message("killAudio"))
    session.play_status(0, status(120, 120, (30, 120)))
    session.text(0, "nonsense")
    counters = session.counters
    assert (counters.clips_queued, counters.clips_done, counters.clips_killed) == (2, 1, 1)
    assert (counters.texts_in, counters.texts_sent, counters.errors_sent) == (4, 4, 1)
