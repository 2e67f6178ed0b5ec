"""The shared memory against a plain model of it, in every order of events.

The model knows nothing of rings, frames or ticks: speech is a list of utterances with the time
at which each was heard, playback a list of samples with their rates. The rules are what a switch
and a worker do; the invariants are what the two users of a call would notice.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pylisten import shm
from pylisten.errors import ShmError

Samples = npt.NDArray[np.int16]

SLOTS = 2
RING_MS = 1000
MS = 1_000_000  # in nanoseconds
FRAME_MS = 20
RATES_HZ = [8000, 16000, 24000, 32000, 48000, 64000]
# Longer than this without a frame, and the talker begins anew at the present.
PAUSE_MS = 300
# Speech after a pause may be laid later than it was heard, by as much as one captured frame.
LONGEST_FRAME_MS = 60

slots = st.integers(0, SLOTS - 1)
rates_hz = st.sampled_from(RATES_HZ)
ptimes_ms = st.sampled_from([10, 20, 30, 40, 60])
mostly_open = st.sampled_from([True, True, True, False])
mixes = st.sampled_from([shm.Mix.MONO, shm.Mix.STEREO])


@dataclass
class Utterance:
    """Speech without a break: when it began, and what of it has not been handed out yet."""

    heard_ms: int
    rest: Samples
    begun: bool = False
    over: bool = False  # silence was handed out behind it

    def extend(self, samples: Samples) -> None:
        assert not self.over, "silence was handed out in the middle of speech"
        self.rest = np.concatenate([self.rest, samples])


@dataclass
class Listen:
    """What the model knows of one listen."""

    rate_hz: int
    mix: shm.Mix
    gen: int
    start_ms: int
    worker: int = 0
    attached: bool = False
    flowing: bool = False
    ended: bool = False
    end_seen: bool = False
    said: int = 0
    sent: int = 0
    last_ms: int = 0
    broken: bool = True
    utterances: deque[Utterance] = field(default_factory=deque)
    digits: deque[str] = field(default_factory=deque)
    playing: deque[tuple[int, Samples]] = field(default_factory=deque)
    written_ticks: int = 0
    played_ticks: int = 0
    flushed_ticks: int = 0
    flushes: int = 0

    @property
    def per_ms(self) -> int:
        return self.rate_hz // 1000


def numbers(first: int, count: int) -> Samples:
    """Samples that count from 1 to 30000 and never are zero: zero is silence."""
    return (1 + np.arange(first, first + count) % 30000).astype(np.int16)


class SharedMemory(RuleBasedStateMachine):
    """A switch and two workers on two slots, on a clock that the rules move."""

    def __init__(self) -> None:
        super().__init__()
        self.switch = shm.Arena.create(SLOTS, RING_MS)
        self.workers = [shm.Arena.map(self.switch.fd) for _ in range(2)]
        self.zero_ns = shm.now_ns()
        self.t_ms = 0
        self.listens: dict[int, Listen] = {}
        self.gens = dict.fromkeys(range(SLOTS), 0)

    def teardown(self) -> None:
        for arena in [*self.workers, self.switch]:
            arena.close()

    @property
    def now_ns(self) -> int:
        return self.zero_ns + self.t_ms * MS

    def worker_of(self, listen: Listen) -> shm.Arena:
        return self.workers[listen.worker]

    def is_live(self, slot: int) -> bool:
        return slot in self.listens and not self.listens[slot].ended

    # The switch: lives of slots.

    @initialize(rate_hz=rates_hz, mix=mixes)
    def begin(self, rate_hz: int, mix: shm.Mix) -> None:
        self.start(0, rate_hz, mix)
        self.start(1, RATES_HZ[0], shm.Mix.MONO)

    @rule(slot=slots, rate_hz=rates_hz, mix=mixes)
    def start(self, slot: int, rate_hz: int, mix: shm.Mix) -> None:
        """The usual way: a worker takes the new listen and is connected at once."""
        if slot not in self.listens:
            self.open(slot, rate_hz, mix)
            self.attach(slot, True)

    @rule(slot=slots, rate_hz=rates_hz, mix=mixes)
    def open(self, slot: int, rate_hz: int, mix: shm.Mix) -> None:
        if slot in self.listens:
            with pytest.raises(ShmError):
                self.switch.open_slot(slot, rate_hz, mix, 0, self.now_ns)
            return
        gen = self.switch.open_slot(slot, rate_hz, mix, 0, self.now_ns)
        assert gen > self.gens[slot]
        self.gens[slot] = gen
        self.listens[slot] = Listen(rate_hz, mix, gen, self.t_ms, last_ms=self.t_ms)

    @rule(slot=slots)
    def end(self, slot: int) -> None:
        if self.is_live(slot):
            self.switch.end_slot(slot, self.now_ns)
            self.listens[slot].ended = True
            self.listens[slot].last_ms = self.t_ms

    @rule(slot=slots)
    def hang_up(self, slot: int) -> None:
        """The usual end: the worker sends what is left and gives the slot back."""
        self.end(slot)
        self.drain()
        self.release(slot)

    @rule(slot=slots)
    def reclaim(self, slot: int) -> None:
        """As the switch does when a worker has released the slot, or none is left for it."""
        if self.is_live(slot):
            with pytest.raises(ShmError):
                self.switch.reclaim(slot)
        elif slot in self.listens and not self.listens[slot].attached:
            self.switch.reclaim(slot)
            del self.listens[slot]

    # The call: speech, pauses, digits.

    @rule(frame_ms=ptimes_ms, frames=st.integers(1, 25))
    def converse(self, frame_ms: int, frames: int) -> None:
        """All talkers of all calls speak, and the workers keep up."""
        for _ in range(frames):
            self.speak(frame_ms, 1)
            self.drain()

    @rule(frame_ms=ptimes_ms, frames=st.integers(1, 25))
    def speak(self, frame_ms: int, frames: int) -> None:
        """All talkers of all calls speak, and nobody is woken."""
        for _ in range(frames):
            self.t_ms += frame_ms
            for slot in self.listens:
                if self.is_live(slot):
                    self.capture(slot, frame_ms)

    def capture(self, slot: int, frame_ms: int) -> None:
        listen = self.listens[slot]
        samples = numbers(listen.said, frame_ms * listen.per_ms)
        listen.said += len(samples)
        taken = self.switch.capture(slot, shm.NEAR, self.now_ns, samples)
        if listen.mix is shm.Mix.STEREO:
            assert self.switch.capture(slot, shm.FAR, self.now_ns, -samples) == taken
        if not taken:
            listen.broken = True
        elif listen.broken or self.t_ms - listen.last_ms > PAUSE_MS:
            heard_ms = max(self.t_ms - frame_ms, listen.start_ms)
            listen.utterances.append(Utterance(heard_ms, samples))
            listen.broken = False
        else:
            listen.utterances[-1].extend(samples)
        listen.last_ms = self.t_ms

    @rule(pause_ms=st.integers(PAUSE_MS + 1, 3000))
    def be_silent(self, pause_ms: int) -> None:
        self.t_ms += pause_ms

    @rule(slot=slots, digit=st.sampled_from("0123456789*#ABCD"))
    def press(self, slot: int, digit: str) -> None:
        if self.is_live(slot) and self.switch.digit(slot, self.now_ns, digit, 1600, False):
            self.listens[slot].digits.append(digit)

    # The workers.

    @rule(slot=slots, is_open=mostly_open)
    def attach(self, slot: int, is_open: bool) -> None:
        listen = self.listens.get(slot)
        if listen is None or listen.attached:
            return
        worker = self.worker_of(listen)
        with pytest.raises(ShmError):
            worker.attach(slot, listen.gen - 1, listen.worker)
        self.switch.assign(slot, listen.worker)
        worker.attach(slot, listen.gen, listen.worker)
        worker.flow(slot, listen.gen, is_open)
        listen.attached, listen.flowing, listen.end_seen = True, is_open, False

    @rule(slot=slots, is_open=mostly_open)
    def flow(self, slot: int, is_open: bool) -> None:
        listen = self.listens.get(slot)
        if listen is not None and listen.attached:
            self.worker_of(listen).flow(slot, listen.gen, is_open)
            listen.flowing = is_open

    @rule(slot=slots, is_open=mostly_open)
    def adopt(self, slot: int, is_open: bool) -> None:
        """The listen goes to the other worker."""
        listen = self.listens.get(slot)
        if listen is not None and listen.attached:
            self.worker_of(listen).detach(slot, listen.gen)
            listen.attached, listen.worker = False, 1 - listen.worker
            self.attach(slot, is_open)

    @rule(slot=slots, is_open=mostly_open)
    def hand_over_and_drain(self, slot: int, is_open: bool) -> None:
        self.adopt(slot, is_open)
        self.drain()

    @rule(worker=st.integers(0, 1))
    def kill(self, worker: int) -> None:
        """A worker dies; another takes its place, and has nothing attached."""
        self.workers[worker].close()
        self.workers[worker] = shm.Arena.map(self.switch.fd)
        for slot, listen in self.listens.items():
            self.switch.evict(slot, worker)
            if listen.worker == worker:
                listen.attached = False

    @rule()
    def drain(self) -> None:
        for worker in self.workers:
            for item in worker.drain(self.now_ns):
                listen = self.listens[item.slot]
                assert self.workers[listen.worker] is worker
                assert item.gen == listen.gen
                self.take(listen, item)
        for slot, listen in self.listens.items():
            if listen.attached:
                assert not listen.digits, "a digit was not handed out"
                self.check_time(slot, listen)

    def take(self, listen: Listen, item: shm.Item) -> None:
        assert not listen.end_seen, "something came after the end"
        assert item.pos == (item.pos if item.kind is shm.Kind.DIGIT else listen.sent)
        if item.kind is shm.Kind.DIGIT:
            assert item.digit == listen.digits.popleft()
        elif item.kind is shm.Kind.END:
            assert listen.ended
            listen.end_seen = True
        else:
            assert listen.flowing
            self.take_frame(listen, item)

    def take_frame(self, listen: Listen, item: shm.Item) -> None:
        frame = np.frombuffer(item.data, dtype="<i2")
        if listen.mix is shm.Mix.STEREO:
            assert np.array_equal(frame[1::2], -frame[0::2])
            frame = frame[0::2]
        assert len(frame) == FRAME_MS * listen.per_ms
        assert item.silence == np.count_nonzero(frame == 0)
        at = 0
        while at < len(frame):
            at += self.take_run(listen, frame[at:], listen.sent + at)
        listen.sent += len(frame)

    def take_run(self, listen: Listen, rest: Samples, pos: int) -> int:
        """Silence, or a piece of the utterance that comes next; returns its samples."""
        if rest[0] == 0:
            spoken = np.flatnonzero(rest)
            for utterance in list(listen.utterances):
                if utterance.begun:
                    assert not len(utterance.rest), "silence in the middle of speech"
                    utterance.over = True
            return int(spoken[0]) if len(spoken) else len(rest)
        while listen.utterances[0].begun and not len(listen.utterances[0].rest):
            listen.utterances.popleft()
        utterance = listen.utterances[0]
        if not utterance.begun:
            late_ms = pos / listen.per_ms + listen.start_ms - utterance.heard_ms
            assert -FRAME_MS <= late_ms <= FRAME_MS + LONGEST_FRAME_MS, late_ms
            utterance.begun = True
        count = min(len(rest), len(utterance.rest))
        assert np.array_equal(rest[:count], utterance.rest[:count])
        utterance.rest = utterance.rest[count:]
        return count

    def check_time(self, slot: int, listen: Listen) -> None:
        """The stream is as long as the listen: nobody has to wait, nothing runs ahead."""
        if listen.end_seen:
            assert not any(len(utterance.rest) for utterance in listen.utterances)
        elapsed_ms = (listen.last_ms if listen.ended else self.t_ms) - listen.start_ms
        lag_ms = elapsed_ms - listen.sent / listen.per_ms
        assert lag_ms >= -(FRAME_MS + LONGEST_FRAME_MS), f"slot {slot} is ahead of the clock"
        if listen.flowing:
            limit_ms = FRAME_MS if listen.ended else PAUSE_MS + LONGEST_FRAME_MS
            assert lag_ms <= limit_ms, f"slot {slot} is behind the clock"
            assert listen.end_seen == listen.ended

    @rule(slot=slots)
    def release(self, slot: int) -> None:
        listen = self.listens.get(slot)
        if listen is not None and listen.attached and listen.end_seen:
            self.worker_of(listen).release(slot, listen.gen)
            assert self.switch.info(slot).state is shm.State.RELEASED
            self.switch.reclaim(slot)
            del self.listens[slot]

    # Playback.

    def playable(self, slot: int) -> Listen | None:
        listen = self.listens.get(slot)
        return listen if listen and listen.attached and not listen.ended else None

    @rule(slot=slots, rate_hz=rates_hz, samples=st.integers(1, 40000))
    def play(self, slot: int, rate_hz: int, samples: int) -> None:
        listen = self.playable(slot)
        if listen is None:
            return
        pcm = numbers(listen.written_ticks, samples)
        taken, kick = self.worker_of(listen).play_write(slot, listen.gen, rate_hz, pcm)
        assert 0 <= taken <= samples
        if listen.flushes == self.switch_flushes(listen, slot):
            assert kick == (taken > 0 and not listen.playing)
        if taken:
            listen.playing.append((rate_hz, pcm[:taken]))
            listen.written_ticks += taken * (shm.TICKS_HZ // rate_hz)

    def switch_flushes(self, listen: Listen, slot: int) -> int:
        return self.worker_of(listen).play_status(slot, listen.gen).flushes

    @rule(slot=slots, rate_hz=rates_hz, samples=st.integers(1, 5000), step=st.integers(1, 3000))
    def play_and_hear(self, slot: int, rate_hz: int, samples: int, step: int) -> None:
        for _ in range(4):
            self.play(slot, rate_hz, samples)
            self.hear(slot, step)

    @rule(slot=slots, max_samples=st.integers(1, 20000))
    def hear(self, slot: int, max_samples: int) -> None:
        listen = self.playable(slot)
        if listen is None:
            return
        rate_hz = listen.playing[0][0] if listen.playing else 0
        assert self.switch.play_rate(slot) == rate_hz
        assert self.switch.play_pending(slot) == bool(listen.playing)
        heard = self.switch.play_read(slot, max_samples)
        expected = self.take_played(listen, max_samples)
        assert np.array_equal(heard, expected)
        if len(heard):
            listen.played_ticks += len(heard) * (shm.TICKS_HZ // rate_hz)
        self.check_play(slot, listen)

    def take_played(self, listen: Listen, max_samples: int) -> Samples:
        """The next samples of one rate."""
        parts: list[Samples] = []
        left = max_samples
        rate_hz = listen.playing[0][0] if listen.playing else 0
        while left and listen.playing and listen.playing[0][0] == rate_hz:
            _, pcm = listen.playing.popleft()
            parts.append(pcm[:left])
            if len(pcm) > left:
                listen.playing.appendleft((rate_hz, pcm[left:]))
            left -= len(parts[-1])
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int16)

    def check_play(self, slot: int, listen: Listen) -> None:
        status = self.worker_of(listen).play_status(slot, listen.gen)
        counters = self.switch.counters(slot)
        assert status.written == listen.written_ticks
        assert status.played == listen.played_ticks + listen.flushed_ticks
        assert counters["played_ticks"] == listen.played_ticks
        assert counters["flushed_ticks"] == listen.flushed_ticks
        assert counters["corrupt"] == 0

    @rule(slot=slots)
    def flush(self, slot: int) -> None:
        listen = self.playable(slot)
        if listen is None:
            return
        self.worker_of(listen).play_flush(slot, listen.gen)
        if listen.playing:
            listen.flushes = self.switch_flushes(listen, slot) + 1
        for rate_hz, pcm in listen.playing:
            listen.flushed_ticks += len(pcm) * (shm.TICKS_HZ // rate_hz)
        listen.playing.clear()

    # Counters agree with what was said, whatever happened.

    @precondition(lambda self: self.listens)
    @rule()
    def count(self) -> None:
        for slot, listen in self.listens.items():
            counters = self.switch.counters(slot)
            assert counters["captured_near"] + counters["dropped_near"] == listen.said
            assert counters["sent"] == listen.sent
            assert counters["corrupt"] == 0


SharedMemory.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestSharedMemory = SharedMemory.TestCase
