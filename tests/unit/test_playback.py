"""The book-keeping over the playback ring, alone and against a model of the ring."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pylisten import playback as playback_module
from pylisten.audio import Clip
from pylisten.playback import (
    ClipDone,
    ClipStarted,
    Flush,
    MarkReached,
    Out,
    Playback,
    QueueFull,
    Samples,
)
from pylisten.shm import TICKS_HZ, Arena, Mix, PlayStatus, now_ns
from pylisten.shm import Flush as Flushed
from pylisten.verb import RATES_HZ


class Ring:
    """The playback ring as `shm.h` describes it, without bytes: what is read was played."""

    def __init__(self, room_samples: int = 1_000_000) -> None:
        self.written = 0
        self.played = 0
        self.flush_to = 0
        self.flushes: list[Flushed] = []
        self.room_samples = room_samples
        self.chunks: deque[tuple[int, Samples]] = deque()
        self.heard: list[tuple[int, Samples]] = []

    def write(self, rate_hz: int, samples: Samples) -> int:
        used = sum(len(waiting) for _, waiting in self.chunks)
        taken = min(len(samples), self.room_samples - used)
        if taken:
            self.chunks.append((rate_hz, samples[:taken]))
        self.written += taken * TICKS_HZ // rate_hz
        return taken

    def flush(self) -> None:
        self.flush_to = self.written

    def read(self, max_samples: int) -> Samples:
        """The switch: carries out a flush, then plays up to `max_samples` of one rate."""
        began = self.played
        while self.chunks and self.played < self.flush_to:
            rate_hz, samples = self.chunks.popleft()
            self.played += len(samples) * TICKS_HZ // rate_hz
        if self.played > began:
            self.flushes.append(Flushed(0, began, self.played))
        if not self.chunks:
            return np.empty(0, np.int16)
        rate_hz, samples = self.chunks.popleft()
        if len(samples) > max_samples:
            self.chunks.appendleft((rate_hz, samples[max_samples:]))
        samples = samples[:max_samples]
        self.played += len(samples) * TICKS_HZ // rate_hz
        self.heard.append((rate_hz, samples))
        return samples

    def status(self) -> PlayStatus:
        last = [Flushed(0, 0, 0)] * 4
        for n, flush in enumerate(self.flushes):
            last[n % 4] = flush
        room_bytes = self.room_samples * 2
        return PlayStatus(self.written, self.played, len(self.flushes), tuple(last), room_bytes)


class SharedRing:
    """The playback ring itself, in shared memory; the same face as `Ring`."""

    def __init__(self) -> None:
        self.switch = Arena.create(1, 200)
        self.gen = self.switch.open_slot(0, 8000, Mix.MONO, 0, now_ns())
        self.worker = Arena.map(self.switch.fd)
        self.worker.attach(0, self.gen, 0)

    def write(self, rate_hz: int, samples: Samples) -> int:
        return self.worker.play_write(0, self.gen, rate_hz, samples)[0]

    def flush(self) -> None:
        self.worker.play_flush(0, self.gen)

    def read(self, max_samples: int) -> Samples:
        self.switch.play_rate(0)
        return self.switch.play_read(0, max_samples)

    def status(self) -> PlayStatus:
        return self.worker.play_status(0, self.gen)

    def close(self) -> None:
        self.worker.close()
        self.switch.close()


class Rig:
    """A playback and its ring; `out` is everything that was reported, in order."""

    def __init__(self, limit: int = 10, look_ahead_ms: int = 400) -> None:
        self.playback = Playback(limit, look_ahead_ms)
        self.ring = Ring()
        self.out: list[Out] = []

    def take(self, out: Sequence[Out]) -> None:
        for report in out:
            if isinstance(report, Flush):
                self.ring.flush()
            else:
                self.out.append(report)

    def clip(self, id: str, ms: int, rate_hz: int = 8000, interrupt: bool = False) -> None:
        ticket, out = self.playback.reserve(id, interrupt)
        self.take(out)
        self.take(self.playback.fill(ticket, clip(ms, rate_hz)))
        self.pump()

    def stream(self, ms: int, rate_hz: int = 8000) -> None:
        self.playback.add_stream(rate_hz, clip(ms, rate_hz).samples)
        self.pump()

    def mark(self, name: str) -> None:
        self.take(self.playback.add_mark(name))

    def kill(self) -> None:
        self.progress()
        self.take(self.playback.kill())

    def pump(self) -> None:
        while piece := self.playback.next_write(1_000_000):
            self.playback.wrote(self.ring.write(*piece))

    def progress(self) -> None:
        self.take(self.playback.progress(self.ring.status()))
        self.pump()

    def play(self, ms: int, rate_hz: int = 8000) -> None:
        """The call goes on for a while, at one rate; then the worker looks."""
        left = ms * rate_hz // 1000
        while got := len(self.ring.read(left)) if left else 0:
            left -= got
        self.progress()


def clip(ms: int, rate_hz: int) -> Clip:
    return Clip(rate_hz, np.ones(ms * rate_hz // 1000, np.int16))


def done(id: str, ms: int) -> list[Out]:
    return [ClipStarted(id), ClipDone(id, ms, "done")]


def test_ticks_are_those_of_the_ring() -> None:
    """Python and C count playback in the same unit."""
    assert playback_module.TICKS_HZ == TICKS_HZ


# Clips.


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_clip_is_done_when_its_last_sample_was_played(rate_hz: int) -> None:
    """A clip is reported when the call has played all of it, and not one sample before."""
    rig = Rig()
    rig.clip("a", 60, rate_hz)
    rig.ring.read(60 * rate_hz // 1000 - 1)
    rig.progress()
    assert rig.out == [ClipStarted("a")]
    rig.ring.read(1)
    rig.progress()
    assert rig.out == done("a", 60)


def test_clip_that_is_not_heard_yet_has_not_started() -> None:
    """To be in the ring is not to be playing."""
    rig = Rig()
    rig.clip("a", 60)
    rig.progress()
    assert rig.out == []


def test_clips_follow_each_other_without_a_gap() -> None:
    """The second clip is in the ring before the first one ends."""
    rig = Rig()
    rig.clip("a", 30)
    rig.clip("b", 30, 48000)
    assert rig.ring.written == 60 * TICKS_HZ // 1000


def test_clips_are_reported_in_order_with_their_length() -> None:
    """Two clips that ended between two looks are reported in the order of the queue."""
    rig = Rig()
    rig.clip("a", 20)
    rig.clip("b", 40)
    rig.play(100)
    assert rig.out == done("a", 20) + done("b", 40)


def test_ids_are_reported_as_they_were_given() -> None:
    """An id may be a number, or absent; clips are not told apart by it."""
    rig = Rig()
    for id in (7, None, None):
        ticket, _ = rig.playback.reserve(id, False)
        rig.playback.fill(ticket, clip(20, 8000))
    rig.pump()
    rig.play(60)
    assert [r.id for r in rig.out if isinstance(r, ClipDone)] == [7, None, None]


def test_empty_clip_is_done_at_its_place() -> None:
    """A clip without samples is over as soon as what stands before it is."""
    rig = Rig()
    rig.clip("a", 20)
    rig.clip("empty", 0)
    assert rig.out == []
    rig.play(20)
    assert rig.out == done("a", 20) + done("empty", 0)


def test_odd_length_is_rounded_to_the_nearest_millisecond() -> None:
    """13 samples at 8000 Hz are 1.625 ms, reported as 2."""
    rig = Rig()
    ticket, _ = rig.playback.reserve("a", False)
    rig.playback.fill(ticket, Clip(8000, np.ones(13, np.int16)))
    rig.pump()
    rig.play(20)
    assert rig.out == done("a", 2)


def test_rate_that_ticks_cannot_count_is_refused() -> None:
    """44100 Hz would make positions inexact."""
    playback = Playback()
    ticket, _ = playback.reserve("a", False)
    with pytest.raises(ValueError, match="44100"):
        playback.fill(ticket, Clip(44100, np.ones(1, np.int16)))
    with pytest.raises(ValueError, match="44100"):
        playback.add_stream(44100, np.ones(1, np.int16))


# The queue's limit.


def test_ten_clips_may_wait_behind_the_one_being_played() -> None:
    """The twelfth clip, that is the eleventh waiting, is refused and changes nothing."""
    rig = Rig()
    for n in range(11):
        rig.clip(f"c{n}", 20)
    with pytest.raises(QueueFull) as caught:
        rig.playback.reserve("c11", False)
    assert (caught.value.code, caught.value.id) == ("queue-full", "c11")
    rig.play(11 * 20)
    assert [r.id for r in rig.out if isinstance(r, ClipDone)] == [f"c{n}" for n in range(11)]


def test_a_finished_clip_makes_room() -> None:
    """The limit counts what waits, not what was ever sent."""
    rig = Rig(limit=1)
    rig.clip("a", 20)
    rig.clip("b", 20)
    rig.play(20)
    rig.clip("c", 20)
    rig.play(40)
    assert rig.out == done("a", 20) + done("b", 20) + done("c", 20)


def test_clips_being_decoded_count_as_waiting() -> None:
    """A place in the queue is taken before the audio is there."""
    playback = Playback(limit=1)
    playback.reserve("a", False)
    playback.reserve("b", False)
    with pytest.raises(QueueFull):
        playback.reserve("c", False)


def test_interrupting_clip_is_never_too_many() -> None:
    """It empties the queue that it would not fit into."""
    rig = Rig(limit=1)
    rig.clip("a", 20)
    rig.clip("b", 20)
    rig.clip("c", 20, interrupt=True)
    rig.play(20)
    assert [r for r in rig.out if isinstance(r, ClipDone)] == [
        ClipDone("a", 0, "killed"),
        ClipDone("b", 0, "killed"),
        ClipDone("c", 20, "done"),
    ]


def test_killed_clips_do_not_count_as_waiting() -> None:
    """After killAudio the whole queue is free, though the switch has not flushed yet."""
    rig = Rig(limit=0)
    rig.clip("a", 20)
    rig.kill()
    rig.clip("b", 20)
    rig.play(20)
    assert rig.out == [ClipDone("a", 0, "killed"), *done("b", 20)]


def test_marks_without_end_are_refused() -> None:
    """A server that sends marks while nothing is played does not fill our memory."""
    rig = Rig()
    rig.clip("a", 20)
    for n in range(999):
        rig.mark(str(n))
    with pytest.raises(QueueFull):
        rig.mark("one too many")


# Decoding.


def test_later_audio_waits_for_a_clip_that_is_being_decoded() -> None:
    """The order of messages is the order of playing, however long decoding takes."""
    rig = Rig()
    slow, _ = rig.playback.reserve("slow", False)
    rig.clip("quick", 20)
    assert rig.ring.written == 0
    rig.take(rig.playback.fill(slow, clip(20, 8000)))
    rig.pump()
    rig.play(40)
    assert rig.out == done("slow", 20) + done("quick", 20)


def test_mark_waits_for_a_clip_that_is_being_decoded() -> None:
    """A mark behind a clip is not reached before the clip is."""
    rig = Rig()
    slow, _ = rig.playback.reserve("slow", False)
    rig.mark("m")
    rig.progress()
    assert rig.out == []
    rig.take(rig.playback.fill(slow, clip(20, 8000)))
    rig.pump()
    rig.play(20)
    assert rig.out == [*done("slow", 20), MarkReached("m", "playout")]


def test_clip_that_cannot_be_decoded_leaves_no_trace() -> None:
    """What waited behind it goes on as if it had never been sent."""
    rig = Rig()
    bad, _ = rig.playback.reserve("bad", False)
    rig.mark("m")
    rig.clip("a", 20)
    rig.take(rig.playback.drop(bad))
    rig.pump()
    rig.play(20)
    assert rig.out == [MarkReached("m", "playout"), *done("a", 20)]


def test_clip_killed_while_being_decoded_is_never_heard() -> None:
    """It is reported at once with 0 ms; its audio is ignored when it comes."""
    rig = Rig()
    slow, _ = rig.playback.reserve("slow", False)
    rig.kill()
    assert rig.out == [ClipDone("slow", 0, "killed")]
    assert rig.playback.fill(slow, clip(20, 8000)) == []
    assert rig.playback.drop(slow) == []
    assert rig.playback.next_write(1000) is None


# Kills.


def test_killed_clip_reports_what_was_heard() -> None:
    """The milliseconds come from where the flush took effect, not from where it was asked for."""
    rig = Rig()
    rig.clip("a", 200)
    rig.play(40)
    rig.kill()
    assert rig.out == [ClipStarted("a")]
    rig.ring.flush_to, asked = 0, rig.ring.flush_to
    rig.play(20)  # the switch plays a frame before it sees the flush
    rig.ring.flush_to = asked
    rig.play(20)
    assert rig.out == [ClipStarted("a"), ClipDone("a", 60, "killed")]
    assert rig.ring.chunks == deque()


def test_clip_added_right_after_a_kill_is_whole() -> None:
    """killAudio directly followed by playAudio: the flush of the one does not touch the other."""
    rig = Rig()
    rig.clip("old", 200)
    rig.play(40)
    rig.kill()
    rig.clip("new", 100, 16000)
    rig.play(100, 16000)
    assert rig.out == [ClipStarted("old"), ClipDone("old", 40, "killed"), *done("new", 100)]


def test_new_clip_is_written_though_the_killed_one_still_fills_the_look_ahead() -> None:
    """What is killed does not count as audio that waits in the ring."""
    rig = Rig(look_ahead_ms=100)
    rig.clip("old", 500)
    rig.kill()
    rig.clip("new", 500)
    assert rig.ring.written == 200 * TICKS_HZ // 1000


def test_kill_reports_the_whole_queue_in_order() -> None:
    """The clip being played, those in the ring, those not written yet, and the marks between."""
    rig = Rig(look_ahead_ms=60)
    rig.clip("a", 40)
    rig.mark("m1")
    rig.clip("b", 40)
    rig.clip("c", 40)
    rig.mark("m2")
    rig.play(20)
    rig.kill()
    rig.play(20)
    assert rig.out == [
        ClipStarted("a"),
        ClipDone("a", 20, "killed"),
        MarkReached("m1", "cleared"),
        ClipDone("b", 0, "killed"),
        ClipDone("c", 0, "killed"),
        MarkReached("m2", "cleared"),
    ]


def test_kill_of_a_queue_that_never_reached_the_ring_needs_no_flush() -> None:
    """Without audio in the ring all is known at once."""
    playback = Playback()
    ticket, _ = playback.reserve("a", False)
    playback.fill(ticket, clip(20, 8000))
    playback.add_mark("m")
    assert playback.kill() == [ClipDone("a", 0, "killed"), MarkReached("m", "cleared")]


def test_kill_of_nothing_does_nothing() -> None:
    """No flush is asked for when the ring has been played."""
    rig = Rig()
    rig.clip("a", 20)
    rig.play(20)
    assert rig.playback.kill() == []


def test_second_kill_asks_for_no_second_flush() -> None:
    """Nothing was written since the first."""
    rig = Rig()
    rig.clip("a", 20)
    assert rig.playback.kill() == [Flush()]
    assert rig.playback.kill() == []
    rig.ring.flush()
    rig.play(20)
    assert rig.out == [ClipDone("a", 0, "killed")]


def test_two_kills_that_the_switch_sees_as_one_flush() -> None:
    """A flush further on covers the one before it."""
    rig = Rig()
    rig.clip("a", 20)
    rig.kill()
    rig.clip("b", 20)
    rig.kill()
    rig.clip("c", 20)
    rig.play(20)
    assert len(rig.ring.flushes) == 1
    assert rig.out == [
        ClipDone("a", 0, "killed"),
        ClipDone("b", 0, "killed"),
        *done("c", 20),
    ]


def test_clip_that_was_played_out_before_the_flush_is_done() -> None:
    """A kill that comes too late to silence anything has killed nothing."""
    rig = Rig()
    rig.clip("a", 20)
    rig.mark("m")
    rig.kill()
    rig.ring.flush_to = 0  # the switch plays the last frame before it looks
    rig.play(20)
    assert rig.out == [*done("a", 20), MarkReached("m", "playout")]


def test_flush_between_two_clips_kills_only_the_second() -> None:
    """The first was heard to its last sample, and is done."""
    rig = Rig()
    rig.clip("a", 20)
    rig.mark("m")
    rig.clip("b", 20)
    rig.kill()
    rig.ring.flush_to, asked = 0, rig.ring.flush_to
    rig.ring.read(160)
    rig.ring.flush_to = asked
    rig.play(20)
    assert rig.out == [*done("a", 20), MarkReached("m", "playout"), ClipDone("b", 0, "killed")]


def test_half_written_clip_heard_to_that_point_is_killed() -> None:
    """Its rest was never written, so it cannot be done, flush or no flush."""
    rig = Rig(look_ahead_ms=20)
    rig.clip("a", 100)
    rig.kill()
    rig.ring.flush_to = 0
    rig.play(20)
    assert rig.out == [ClipStarted("a"), ClipDone("a", 20, "killed")]


def test_mark_added_after_a_kill_is_not_cleared_by_it() -> None:
    """It stands at the very position of the flush, but behind it."""
    rig = Rig()
    rig.clip("a", 100)
    rig.kill()
    rig.mark("m")
    assert rig.out == []
    rig.play(20)
    assert rig.out == [ClipDone("a", 0, "killed"), MarkReached("m", "playout")]


def test_three_flushes_between_two_looks() -> None:
    """Each clip finds the flush that ended it among the last four."""
    rig = Rig()
    for n in range(3):
        rig.clip(f"c{n}", 100)
        rig.ring.read(80 * (n + 1))
        rig.take(rig.playback.kill())
    rig.clip("last", 20)
    rig.play(20)
    assert len(rig.ring.flushes) == 3
    assert [r for r in rig.out if isinstance(r, ClipDone)] == [
        ClipDone("c0", 10, "killed"),
        ClipDone("c1", 20, "killed"),
        ClipDone("c2", 30, "killed"),
        ClipDone("last", 20, "done"),
    ]


def test_flush_seen_before_the_position_moved() -> None:
    """The switch publishes the flush first; until the position follows, nothing is concluded."""
    rig = Rig()
    rig.clip("a", 100)
    rig.kill()
    rig.ring.read(0)
    after = rig.ring.status()
    early = PlayStatus(after.written, 0, after.flushes, after.flush, after.room_bytes)
    assert rig.playback.progress(early) == []
    assert rig.playback.progress(after) == [ClipDone("a", 0, "killed")]


def test_flush_that_is_being_written_while_it_is_read() -> None:
    """A half-new result (an old beginning, a new end) would reach over what was heard."""
    rig = Rig()
    rig.clip("a", 20)
    rig.kill()
    rig.clip("b", 20)
    rig.kill()
    half = (Flushed(0, 0, rig.ring.written), *[Flushed(0, 0, 0)] * 3)
    heard = PlayStatus(rig.ring.written, 20 * TICKS_HZ // 1000, 1, half, 1000)
    assert rig.playback.progress(heard) == done("a", 20)


# Streams.


def test_stream_and_clips_keep_their_order() -> None:
    """Streamed audio takes its place between clips and is not reported."""
    rig = Rig()
    rig.stream(20)
    rig.clip("a", 20, 16000)
    rig.stream(20)
    rig.play(20)
    assert rig.out == []
    rig.play(20, 16000)
    assert rig.out == done("a", 20)
    assert not rig.playback.idle
    rig.play(20)
    assert rig.playback.idle


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_mark_behind_streamed_audio_is_exact(rate_hz: int) -> None:
    """A mark is reached with the last sample before it, at every rate."""
    rig = Rig()
    rig.stream(20, rate_hz)
    rig.mark("m")
    rig.stream(20, rate_hz)
    rig.ring.read(20 * rate_hz // 1000 - 1)
    rig.progress()
    assert rig.out == []
    rig.ring.read(1)
    rig.progress()
    assert rig.out == [MarkReached("m", "playout")]


def test_killed_stream_clears_its_marks() -> None:
    """The stream is silenced; a mark within what was not heard is cleared."""
    rig = Rig()
    rig.stream(40)
    rig.mark("heard")
    rig.stream(40)
    rig.mark("unheard")
    rig.play(60)
    rig.kill()
    rig.play(20)
    assert rig.out == [MarkReached("heard", "playout"), MarkReached("unheard", "cleared")]


def test_backlog_counts_streamed_audio_that_does_not_fit_the_ring() -> None:
    """It grows with what waits, and is nothing when nothing waits."""
    rig = Rig(look_ahead_ms=20)
    rig.stream(20)
    assert rig.playback.backlog_bytes == 0
    rig.stream(20)
    assert rig.playback.backlog_bytes >= 320
    rig.play(20)
    assert rig.playback.backlog_bytes == 0


def test_backlog_counts_more_than_samples() -> None:
    """Two bytes a frame must not be a way to fill our memory unseen."""
    playback = Playback()
    for _ in range(1000):
        playback.add_stream(8000, np.ones(1, np.int16))
    assert playback.backlog_bytes > 100_000


# Marks.


def test_mark_with_nothing_before_it_is_reached_at_once() -> None:
    """There is nothing to wait for."""
    assert Playback().add_mark("m") == [MarkReached("m", "playout")]


def test_clear_marks_leaves_the_audio_alone() -> None:
    """Every waiting mark is cleared once; clips play on."""
    rig = Rig(look_ahead_ms=20)
    rig.clip("a", 20)
    rig.mark("m1")
    rig.clip("b", 20)
    rig.mark("m2")
    rig.take(rig.playback.clear_marks())
    assert rig.out == [MarkReached("m1", "cleared"), MarkReached("m2", "cleared")]
    rig.play(20)
    rig.play(20)
    assert rig.out[2:] == done("a", 20) + done("b", 20)


# The ring.


def test_look_ahead_bounds_what_is_written() -> None:
    """No more than the look-ahead lies in the ring; it is refilled as the call plays."""
    rig = Rig(look_ahead_ms=100)
    rig.clip("a", 1000)
    assert rig.ring.written == 100 * TICKS_HZ // 1000
    rig.play(20)
    assert rig.ring.written == 120 * TICKS_HZ // 1000
    assert rig.playback.buffered_ms == 980


def test_write_is_bounded_by_the_room() -> None:
    """What the ring has no room for is not offered."""
    playback = Playback()
    playback.add_stream(8000, np.arange(100, dtype=np.int16))
    piece = playback.next_write(21)
    assert piece is not None
    assert piece[0] == 8000
    assert piece[1].tolist() == list(range(10))
    assert playback.next_write(0) is None


def test_ring_that_takes_less_than_offered_gets_the_rest_later() -> None:
    """Nothing is lost between what was offered and what was taken."""
    playback = Playback()
    playback.add_stream(8000, np.arange(100, dtype=np.int16))
    playback.next_write(1000)
    playback.wrote(0)
    playback.wrote(30)
    piece = playback.next_write(1000)
    assert piece is not None
    assert piece[1].tolist() == list(range(30, 100))


def test_more_than_offered_cannot_be_taken() -> None:
    """A worker that miscounts is told."""
    playback = Playback()
    with pytest.raises(ValueError, match="not on offer"):
        playback.wrote(1)
    playback.add_stream(8000, np.ones(10, np.int16))
    with pytest.raises(ValueError, match="not on offer"):
        playback.wrote(11)


def test_positions_of_an_adopted_ring_do_not_begin_at_zero() -> None:
    """What another worker wrote is played first, and is not mistaken for ours."""
    rig = Rig()
    rig.ring.write(8000, np.ones(160, np.int16))
    rig.progress()
    rig.clip("a", 20)
    rig.play(20)
    assert rig.out == []
    rig.play(20)
    assert rig.out == done("a", 20)


# The end.


def test_close_reports_what_is_left() -> None:
    """The call is over: each clip says how much of it was heard, marks are cleared."""
    rig = Rig(look_ahead_ms=60)
    rig.clip("a", 40)
    rig.clip("b", 100)
    rig.mark("m")
    rig.playback.reserve("c", False)
    rig.play(50)
    assert rig.playback.close() == [
        ClipDone("b", 10, "killed"),
        MarkReached("m", "cleared"),
        ClipDone("c", 0, "killed"),
    ]
    assert rig.playback.idle


# Everything at once, against the model.


@dataclass(eq=False)
class Item:
    """What the model knows of a clip, a piece of streamed audio or a mark."""

    kind: str
    tag: int
    added: int  # kills before it
    samples: Samples = field(default_factory=lambda: np.empty(0, np.int16))
    rate_hz: int = 8000
    ticket: int | None = None  # while it is being decoded
    heard: int = 0
    killed: int | None = None  # number of the kill
    started: bool = False
    reported: bool = False

    @property
    def whole(self) -> bool:
        return self.ticket is None and self.heard == len(self.samples)


class PlaybackMachine(RuleBasedStateMachine):
    """Any order of messages, writes, playing and looks; the ring's content is the judge."""

    def __init__(self) -> None:
        super().__init__()
        self.kills = 0
        self.items: list[Item] = []  # all that was queued, in order
        self.waiting: list[Item] = []  # clips and marks that were not reported

    def make_ring(self, room_samples: int) -> Ring | SharedRing:
        return Ring(room_samples)

    @initialize(look_ahead_ms=st.sampled_from([5, 30, 400]), room=st.sampled_from([100, 10_000]))
    def begin(self, look_ahead_ms: int, room: int) -> None:
        self.playback = Playback(1000, look_ahead_ms)
        self.ring: Ring | SharedRing = self.make_ring(room)

    # Messages.

    def add(self, kind: str, rate_hz: int = 8000, length: int = 0) -> Item:
        tag = len(self.items)
        samples = np.arange(length, dtype=np.int16) + np.int16(tag * 100)
        item = Item(kind, tag, self.kills, samples, rate_hz)
        self.items.append(item)
        if kind != "stream":
            self.waiting.append(item)
        return item

    @rule(
        rate_hz=st.sampled_from(RATES_HZ),
        length=st.integers(0, 99),
        interrupt=st.booleans(),
        later=st.booleans(),
    )
    @precondition(lambda self: len(self.items) < 300)
    def play_audio(self, rate_hz: int, length: int, interrupt: bool, later: bool) -> None:
        if interrupt:
            self.look()
            self.note_kill()
        item = self.add("clip", rate_hz, length)
        item.ticket, out = self.playback.reserve(item.tag, interrupt)
        self.take(out)
        if not later:
            self.decoded(item)

    @rule(data=st.data(), good=st.booleans())
    def decode(self, data: st.DataObject, good: bool) -> None:
        pending = [item for item in self.items if item.ticket is not None]
        if not pending:
            return
        item = data.draw(st.sampled_from(pending))
        if good:
            self.decoded(item)
            return
        assert item.ticket is not None
        if item.killed is None:
            self.waiting.remove(item)
            self.items[item.tag] = Item("dropped", item.tag, item.added)
        ticket, item.ticket = item.ticket, None
        self.take(self.playback.drop(ticket))

    def decoded(self, item: Item) -> None:
        assert item.ticket is not None
        ticket, item.ticket = item.ticket, None
        self.take(self.playback.fill(ticket, Clip(item.rate_hz, item.samples)))

    @rule(rate_hz=st.sampled_from(RATES_HZ), length=st.integers(1, 99))
    @precondition(lambda self: len(self.items) < 300)
    def stream(self, rate_hz: int, length: int) -> None:
        self.playback.add_stream(rate_hz, self.add("stream", rate_hz, length).samples)

    @rule()
    @precondition(lambda self: len(self.items) < 300)
    def mark(self) -> None:
        item = self.add("mark")
        self.take(self.playback.add_mark(str(item.tag)))

    @rule()
    def kill(self) -> None:
        self.look()
        self.note_kill()
        self.take(self.playback.kill())

    def note_kill(self) -> None:
        self.kills += 1
        for item in self.items:
            if item.killed is None and not item.reported and not (item.samples.size and item.whole):
                item.killed = self.kills

    @rule()
    def clear_marks(self) -> None:
        self.look()
        marks = [item for item in self.waiting if item.kind == "mark"]
        out = self.playback.clear_marks()
        cleared = out[: len(marks)]
        assert cleared == [MarkReached(str(item.tag), "cleared") for item in marks]
        self.waiting = [item for item in self.waiting if item.kind == "clip"]
        self.take(out[len(marks) :])

    # The ring.

    @rule(room_bytes=st.integers(0, 500))
    def write(self, room_bytes: int) -> None:
        piece = self.playback.next_write(room_bytes)
        if piece is not None:
            assert 0 < len(piece[1]) * 2 <= room_bytes
            self.playback.wrote(self.ring.write(*piece))

    @rule(max_samples=st.integers(0, 200))
    def call_plays(self, max_samples: int) -> None:
        for value in self.ring.read(max_samples):
            item = self.items[int(value) // 100]
            assert not item.reported, "heard after its report"
            assert int(value) % 100 == item.heard, "a hole, or out of order"
            item.heard += 1
            assert all(earlier.whole or earlier.killed for earlier in self.before(item))

    @rule()
    def look(self) -> None:
        self.take(self.playback.progress(self.ring.status()))
        if self.waiting:
            head = self.waiting[0]
            if head.kind == "clip" and head.heard:
                assert head.started, "a clip was heard, but not announced"
                assert not head.whole, "a clip was played out, but not reported"
            if head.kind == "mark":
                assert not all(item.whole for item in self.before(head)), "a mark was passed over"

    # Reports.

    def before(self, item: Item) -> list[Item]:
        return self.items[: item.tag]

    def take(self, out: Sequence[Out]) -> None:
        for report in out:
            match report:
                case Flush():
                    self.ring.flush()
                case ClipStarted(tag):
                    assert self.waiting[0].tag == tag
                    assert not self.waiting[0].started
                    self.waiting[0].started = True
                case ClipDone():
                    self.clip_done(report)
                case MarkReached():
                    self.mark_reached(report)

    def clip_done(self, report: ClipDone) -> None:
        item = self.waiting.pop(0)
        item.reported = True
        assert report.id == item.tag
        assert abs(report.milliseconds - item.heard * 1000 / item.rate_hz) <= 0.5
        assert item.started or not item.heard
        if item.samples.size:
            assert report.reason == ("done" if item.whole else "killed")
        assert report.reason == "done" or item.killed

    def mark_reached(self, report: MarkReached) -> None:
        item = self.waiting.pop(0)
        item.reported = True
        assert report.name == str(item.tag)
        if report.event == "cleared":
            assert item.killed
            assert not all(earlier.whole for earlier in self.before(item))
        for earlier in self.before(item) if report.event == "playout" else []:
            gone = earlier.killed is not None and earlier.killed <= item.added
            assert earlier.whole or gone, "audio before the mark was not heard"

    @invariant()
    def counts_are_sane(self) -> None:
        if hasattr(self, "playback"):
            assert self.playback.backlog_bytes >= 0
            assert self.playback.buffered_ms >= 0
            assert not (self.playback.idle and self.waiting)

    def teardown(self) -> None:
        """Played to the end, everything has been reported and what was not killed is whole."""
        for item in [item for item in self.items if item.ticket is not None]:
            self.decoded(item)
        for _ in range(100_000):
            if not hasattr(self, "playback") or self.playback.idle:
                break
            self.write(500)
            self.call_plays(200)
            self.look()
        else:
            raise AssertionError("playback does not come to an end")
        assert not self.waiting
        assert all(item.whole for item in self.items if item.killed is None)
        if hasattr(self, "playback"):
            assert (self.playback.backlog_bytes, self.playback.buffered_ms) == (0, 0)


class SharedPlaybackMachine(PlaybackMachine):
    """The same, over the shared memory that a switch and its workers really use."""

    def make_ring(self, room_samples: int) -> SharedRing:
        return SharedRing()

    def teardown(self) -> None:
        super().teardown()
        if isinstance(ring := getattr(self, "ring", None), SharedRing):
            ring.close()


@pytest.mark.parametrize("machine", [PlaybackMachine, SharedPlaybackMachine])
def test_any_order_of_events(machine: type[PlaybackMachine]) -> None:
    """Each clip is reported once, in order, with what was heard; marks are exact; what comes after
    a kill is whole: whatever the order of messages, writes, playing and looks."""
    run_state_machine_as_test(
        machine, settings=settings(max_examples=100, stateful_step_count=50, deadline=None)
    )
