"""The session's rules of the verb that need a time-line: pause, silence, and the beep."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from pylisten.playback import beep
from pylisten.session import (
    Action,
    CloseFlow,
    Connect,
    Discard,
    Emit,
    End,
    Flush,
    Log,
    OpenFlow,
    SendBinary,
    Session,
    State,
    Trim,
    Write,
)
from pylisten.verb import parse_verb
from tests.unit.test_session import (
    ATTRIBUTES,
    FRAME,
    end,
    make,
    message,
    play,
    play_audio,
    play_done,
    status,
    streaming,
    texts,
    write,
)

SILENT = bytes(len(FRAME))
LOUD, QUIET = 10_000, 0


def say(
    session: Session, frames: Iterable[int], level: int = LOUD, late_ms: float = 20
) -> list[Action]:
    """Frames of 20 ms, by number; each comes `late_ms` after its end, 20 ms a frame."""
    return [
        action
        for n in frames
        for action in session.frame(n * 20 + 20 + late_ms, FRAME, level, 0, n * 160)
    ]


def the_end(actions: Iterable[Action]) -> End:
    [over] = [action for action in actions if isinstance(action, End)]
    return over


def seconds_until_end(session: Session, first: int = 0, level: int = QUIET) -> float | None:
    """When the session ends, on its time-line, if nobody speaks; None if not within 20 s."""
    for n in range(first, 1000):
        if any(isinstance(action, End) for action in say(session, [n], level)):
            return (n + 1) / 50
    return None


# Pause.


@pytest.mark.parametrize("argument", ["", "silence"])
def test_paused_audio_is_silence_of_the_same_length(argument: str) -> None:
    """The stream keeps its time; resume lets the caller be heard again."""
    session = streaming()
    assert say(session, [0]) == [SendBinary(FRAME)]
    assert session.command(20, "pause", argument) == []
    assert say(session, [1, 2]) == [SendBinary(SILENT)] * 2
    assert session.command(60, "resume", "") == []
    assert say(session, [3]) == [SendBinary(FRAME)]
    assert (session.counters.frames_paused, session.counters.frames_sent) == (2, 4)


def test_paused_stereo_audio_is_silent_on_both_tracks() -> None:
    """The far end is not heard either."""
    session = streaming(mixType="stereo")
    session.command(0, "pause", "")
    assert session.frame(40, FRAME * 2, 0, 0, 0) == [SendBinary(SILENT * 2)]


def test_paused_audio_can_be_left_out() -> None:
    """`drop`: nothing is sent, and the frames are counted."""
    session = streaming()
    session.command(0, "pause", "drop")
    assert say(session, [0, 1]) == []
    session.command(40, "resume", "")
    assert say(session, [2]) == [SendBinary(FRAME)]
    counters = session.counters
    assert (counters.frames_paused, counters.frames_sent, counters.bytes_sent) == (2, 1, 320)


def test_kind_of_a_pause_can_be_changed() -> None:
    """The second command counts from when it is given; asked for again, a pause goes on."""
    session = streaming()
    session.command(0, "pause", "silence")
    session.command(10, "pause", "silence")
    session.command(20, "pause", "drop")
    assert say(session, [0, 1, 2]) == [SendBinary(SILENT)]
    session.command(60, "resume", "")
    assert say(session, [3]) == [SendBinary(FRAME)]


def test_what_was_said_before_a_pause_is_sent_after_it_began() -> None:
    """Frames come late; a pause is about what is said, not about what is on its way."""
    session = streaming()
    session.command(40, "pause", "")
    assert say(session, [0, 1, 2], late_ms=500) == [SendBinary(FRAME)] * 2 + [SendBinary(SILENT)]


def test_what_was_said_in_a_pause_is_not_sent_after_it() -> None:
    """Not even if it waited in the ring while the server was away."""
    session = streaming()
    session.closed(0, 1006, "")
    session.command(20, "pause", "")
    session.command(60, "resume", "")
    session.tick(300)
    session.connected(300)
    burst = say(session, range(5), late_ms=300)
    assert burst == [SendBinary(data) for data in (FRAME, SILENT, SILENT, FRAME, FRAME)]


def test_frame_that_lies_in_a_pause_in_part_belongs_to_it() -> None:
    """At both ends."""
    session = streaming()
    session.command(39, "pause", "")
    session.command(61, "resume", "")
    sent = say(session, range(5))
    assert sent == [SendBinary(data) for data in (FRAME, SILENT, SILENT, SILENT, FRAME)]


def test_time_line_of_a_pause_is_that_of_the_listen() -> None:
    """It began before this worker came."""
    session = make()
    session.start(1000, 900)
    session.connected(1000)
    session.command(1040, "pause", "")
    assert session.frame(1060, FRAME, 0, 0, 6 * 160) == [SendBinary(FRAME)]
    assert session.frame(1080, FRAME, 0, 0, 7 * 160) == [SendBinary(SILENT)]


def test_pause_before_the_connection_stands() -> None:
    """Nothing gets through because it was early."""
    session = make()
    session.start(0)
    session.command(0, "pause", "")
    session.connected(100)
    assert say(session, [0]) == [SendBinary(SILENT)]


def test_keys_work_in_a_pause() -> None:
    """They are passed on, and end the listen."""
    session = streaming(passDtmf=True, finishOnKey="#")
    session.command(0, "pause", "drop")
    assert texts(session.digit(0, "1", 800, False))[0]["dtmf"] == "1"
    assert the_end(session.digit(0, "#", 800, False)).reason == "finish-key"


@pytest.mark.parametrize("argument", ["silence", "drop"])
def test_max_length_counts_in_a_pause(argument: str) -> None:
    """Time passes."""
    session = streaming(maxLength=1)
    session.command(0, "pause", argument)
    say(session, range(49))
    assert the_end(say(session, [49])).reason == "max-length"


@pytest.mark.parametrize("argument", ["silence", "drop"])
def test_silence_counts_in_a_pause(argument: str) -> None:
    """It is the caller's, not what the server is sent."""
    session = streaming(timeout=1)
    session.command(0, "pause", argument)
    say(session, range(100), LOUD)
    assert seconds_until_end(session, 100) == 3.0


def test_unknown_kind_of_pause_is_logged() -> None:
    """And nothing is paused."""
    session = streaming()
    expected = Log("warning", "pause: found 'music', expected silence or drop")
    assert session.command(0, "pause", "music") == [expected]
    assert say(session, [0]) == [SendBinary(FRAME)]


def test_resume_without_a_pause_is_logged() -> None:
    """Before any, and a second time."""
    session = streaming()
    expected = [Log("warning", "resume: the listen is not paused")]
    assert session.command(0, "resume", "") == expected
    session.command(0, "pause", "")
    assert session.command(20, "resume", "") == []
    assert session.command(20, "resume", "") == expected


# Silence.


def test_silence_ends_the_listen() -> None:
    """From the last loud frame; the frames up to it are sent."""
    session = streaming(timeout=1)
    say(session, range(10))
    assert say(session, range(10, 59), QUIET) == [SendBinary(FRAME)] * 49
    last = say(session, [59], QUIET)
    assert last == [SendBinary(FRAME), end("silence", bytes_sent=60 * 320), Discard()]
    assert session.reason == "silence"


def test_caller_who_never_speaks_is_silent() -> None:
    """From the first frame on."""
    assert seconds_until_end(streaming(timeout=2.5)) == 2.5


def test_nobody_is_thrown_out_who_speaks() -> None:
    """Nor without a timeout."""
    assert seconds_until_end(streaming(timeout=0.5), level=LOUD) is None
    assert seconds_until_end(streaming()) is None


def test_what_counts_as_silence_is_configured() -> None:
    """Threshold, attack and hang-over come from the constructor."""
    verb = parse_verb({"url": "ws://x/", "timeout": 0.1})

    def session(**settings: Any) -> Session:
        made = Session("lid", verb, ATTRIBUTES, **settings)
        made.start(0)
        made.connected(0)
        return made

    assert seconds_until_end(session(), level=1000) is None
    assert seconds_until_end(session(silence_threshold_dbfs=-20.0), level=1000) == 0.1
    assert seconds_until_end(session(silence_attack_ms=200), level=1000) == 0.1
    slow = session(silence_hangover_ms=500)
    say(slow, range(5))
    assert seconds_until_end(slow, 5) == 0.6


def test_what_the_caller_hears_is_no_silence() -> None:
    """It counts from the end of the clip."""
    session = streaming(timeout=1)
    play(session, "a", 400)
    for n in range(20):
        say(session, [n], QUIET, late_ms=0)
        session.play_status(n * 20 + 20, status(400, n * 20 + 20))
    assert session.state is State.STREAMING
    ends = seconds_until_end(session, 20)
    assert ends is not None
    assert 1.38 <= ends <= 1.42


def test_silence_before_a_clip_is_over_with_it() -> None:
    """It does not go on where it was interrupted."""
    session = streaming(timeout=1)
    say(session, range(40), QUIET)
    play(session, "a", 40)
    session.play_status(820, status(40, 20))
    say(session, range(40, 41), QUIET, late_ms=0)
    session.play_status(840, status(40, 40))
    say(session, range(41, 42), QUIET, late_ms=0)
    assert seconds_until_end(session, 42) == 1.86


def test_clip_that_is_killed_is_heard_no_more() -> None:
    """Silence counts from the kill."""
    session = streaming(timeout=1)
    play(session, "a", 400)
    session.play_status(100, status(400, 100))
    assert session.text(100, message("killAudio")) == [Flush()]
    session.play_status(120, status(400, 400, (110, 400)))
    session.play_status(140, status(400, 400, (110, 400)))
    ends = seconds_until_end(session)
    assert ends is not None
    assert 1.1 <= ends <= 1.16


def test_audio_that_waited_is_no_silence_after_a_clip_that_was_heard_meanwhile() -> None:
    """The caller was listening while the server was away."""
    session = streaming(timeout=1)
    play(session, "a", 400)
    session.closed(0, 1006, "")
    session.play_status(20, status(400, 20))
    session.play_status(3000, status(400, 400))
    session.tick(3000)
    session.connected(3000)
    assert say(session, range(150), QUIET) == [SendBinary(FRAME)] * 150
    assert session.state is State.STREAMING
    assert seconds_until_end(session, 150) == 4.02


# The beep.


def ready_to_beep(**verb: Any) -> Session:
    """A session that beeps, and is connected; the switch has not played anything yet."""
    session = make(playBeep=True, **verb)
    session.start(0)
    assert write(session, session.play_status(0, status(0, 0))) == 400  # the look-ahead
    session.connected(100)
    return session


def test_beep_is_half_a_second_at_1500_hz() -> None:
    """About -12 dBFS, and without a click at its ends."""
    rate_hz, samples = beep()
    assert len(samples) == rate_hz // 2
    spectrum = np.abs(np.fft.rfft(samples.astype(float)))
    assert np.argmax(spectrum) * rate_hz / len(samples) == 1500
    rms = np.sqrt(np.mean(samples.astype(float) ** 2))
    assert -12.5 < 20 * np.log10(rms / 32767) < -11.5
    steady = np.abs(samples[len(samples) // 2 :][:100]).max()
    for edge in (samples[:8], samples[-8:]):
        assert np.abs(edge).max() < steady / 4


def test_beep_is_played_while_the_connection_is_opened() -> None:
    """Neither waits for the other."""
    session = make(playBeep=True)
    [connect] = session.start(0)
    assert isinstance(connect, Connect)
    [tone] = session.play_status(0, status(0, 0))
    assert isinstance(tone, Write)
    assert tone.rate_hz == 8000


def test_nothing_flows_before_the_beep_is_over() -> None:
    """The server has its first frame; audio up to the end of the beep is given up."""
    session = make(playBeep=True)
    session.start(0)
    write(session, session.play_status(0, status(0, 0)))
    actions = session.connected(100)
    assert texts(actions)[0]["sampleRate"] == 8000
    assert OpenFlow() not in actions
    assert write(session, session.play_status(400, status(400, 300))) == 100
    assert session.play_status(480, status(500, 499)) == []
    assert session.play_status(520, status(500, 500)) == [Trim(0), OpenFlow()]
    assert session.trimmed(520, 4160) == []
    assert session.frame(560, FRAME, 0, 0, 4160) == [SendBinary(FRAME)]


def test_connection_that_stands_after_the_beep_flows_at_once() -> None:
    """What is said after the beep is kept for it."""
    session = make(playBeep=True)
    session.start(0)
    write(session, session.play_status(0, status(0, 0)))
    write(session, session.play_status(400, status(400, 300)))
    assert session.play_status(520, status(500, 500)) == [Trim(0)]
    session.trimmed(520, 4160)
    assert OpenFlow() in session.connected(1000)


def test_beep_is_not_reported() -> None:
    """It is no clip of the server's."""
    session = ready_to_beep()
    write(session, session.play_status(400, status(400, 300)))
    actions = session.play_status(520, status(500, 500))
    assert not any(isinstance(action, Emit) for action in actions)
    assert texts(actions) == []
    counters = session.counters
    assert (counters.clips_queued, counters.clips_done, counters.clips_killed) == (0, 0, 0)


def test_clip_that_comes_during_the_beep_is_played_after_it() -> None:
    """And reported as ever."""
    session = ready_to_beep()
    play(session, "a", 40)
    write(session, session.play_status(400, status(400, 300)))
    actions = session.play_status(520, status(540, 500))
    assert actions == [Trim(0), OpenFlow()]
    assert texts(session.play_status(560, status(540, 540))) == [play_done("a", 40, "done")]


def test_ten_clips_may_wait_behind_the_beep() -> None:
    """It is what is being played."""
    session = ready_to_beep()
    for n in range(10):
        play(session, str(n), 20)
    [error] = texts(session.text(0, play_audio("late")))
    assert (error["data"]["code"], error["data"]["id"]) == ("queue-full", "late")


def test_killed_beep_is_over() -> None:
    """The server that stops it wants to hear the caller."""
    session = ready_to_beep()
    assert session.text(150, message("killAudio")) == [Flush()]
    actions = session.play_status(200, status(400, 400, (160, 400)))
    assert actions == [Trim(0), OpenFlow()]


def test_beep_that_is_not_played_is_not_waited_for_forever() -> None:
    """Three seconds after the start audio flows all the same, and the log says why."""
    session = ready_to_beep()
    assert session.tick(2999) == []
    log, trim, flow = session.tick(3000)
    assert isinstance(log, Log)
    assert log.level == "warning"
    assert (trim, flow) == (Trim(0), OpenFlow())
    session.trimmed(3000, 24_000)
    assert session.tick(3020) == []
    write(session, session.play_status(4000, status(400, 400)))
    assert session.play_status(5000, status(500, 500)) == []


def test_patience_for_the_beep_counts_from_the_start() -> None:
    """Whatever the clock says then, and however old the listen is."""
    session = make(playBeep=True)
    session.start(50_000, 40_000)
    assert session.tick(52_999) == []
    assert session.tick(53_000)[1:] == [Trim(0)]


def test_beep_that_is_not_played_does_not_delay_a_slow_connection() -> None:
    """It is over before."""
    session = make(playBeep=True)
    session.start(0)
    assert session.tick(3000)[1:] == [Trim(0)]
    session.trimmed(3000, 24_000)
    assert OpenFlow() in session.connected(4000)


def test_audio_before_the_beep_is_no_gap() -> None:
    """The verb asked for it to be left out; but it was a part of the time-line."""
    session = ready_to_beep(maxLength=1)
    write(session, session.play_status(400, status(400, 300)))
    session.play_status(520, status(500, 500))
    session.trimmed(520, 4160)
    say(session, range(26, 49))
    over = the_end(say(session, [49]))
    assert (over.reason, over.gap_ms) == ("max-length", 0)


def test_connection_that_is_lost_during_the_beep() -> None:
    """The ring is trimmed by the beep alone, then for the loss; the position is right."""
    session = ready_to_beep()
    assert session.closed(200, 1006, "")[0] == CloseFlow()
    assert session.tick(220) == []
    write(session, session.play_status(400, status(400, 300)))
    assert session.play_status(520, status(500, 500)) == [Trim(0)]
    session.trimmed(520, 4160)
    connect, trim = session.tick(540)
    assert isinstance(connect, Connect)
    assert trim == Trim(9500)
    session.trimmed(540, 0)
    actions = session.connected(560)
    assert OpenFlow() in actions
    assert texts(actions)[1]["data"] == {"gapMilliseconds": 0, "positionMilliseconds": 520}


def test_beep_over_and_trim_of_a_loss_in_one_tick_are_told_apart() -> None:
    """The first answer is about the beep, the second about the loss."""
    session = ready_to_beep()
    session.closed(2900, 1006, "")
    log, beep_trim, loss_trim = session.tick(3000)
    assert isinstance(log, Log)
    assert (beep_trim, loss_trim) == (Trim(0), Trim(9500))
    session.trimmed(3000, 24_000)
    session.trimmed(3000, 160)
    assert session.counters.samples_given_up == 160


def test_adopted_listen_does_not_beep_again() -> None:
    """The caller has heard it."""
    verb = parse_verb({"url": "ws://x/", "playBeep": True})
    session = Session("lid", verb, ATTRIBUTES, resumed=True)
    session.start(0)
    assert session.play_status(0, status(0, 0)) == []
    assert OpenFlow() in session.connected(10)


def test_max_length_counts_during_the_beep() -> None:
    """By the clock, as no audio flows."""
    session = ready_to_beep(maxLength=0.3)
    assert session.tick(299) == []
    assert the_end(session.tick(300)).reason == "max-length"


def test_beep_of_a_listen_that_has_ended_is_nothing() -> None:
    """No flow is opened for it."""
    session = ready_to_beep()
    session.command(200, "stop", "")
    assert session.play_status(520, status(400, 400)) == []
