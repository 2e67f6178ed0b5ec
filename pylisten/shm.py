"""The shared memory between a switch and its workers: a typed face for the C code in `_shm`.

The header `mod_listen/shm/shm.h` is the reference for what each call means. Audio goes in as
one-dimensional `int16` arrays and comes out as `bytes` (frames) or arrays (playback): always a
copy, so that nothing here can be seen to change, or to become another call's audio, later.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pylisten._shm import ffi, lib
from pylisten.errors import ShmError

__all__ = [
    "ABI_MAJOR",
    "ABI_MINOR",
    "FAR",
    "MAGIC",
    "NEAR",
    "NO_WORKER",
    "TICKS_HZ",
    "Arena",
    "Flush",
    "Item",
    "Kind",
    "Mix",
    "PlayStatus",
    "SlotInfo",
    "State",
    "layout",
    "now_ns",
]

Samples = npt.NDArray[np.int16]

ABI_MAJOR: int = lib.LSN_ABI_MAJOR
ABI_MINOR: int = lib.LSN_ABI_MINOR
MAGIC: int = lib.LSN_MAGIC
NO_WORKER: int = lib.LSN_NO_WORKER
TICKS_HZ: int = lib.LSN_TICKS_HZ
NEAR: int = lib.LSN_NEAR
FAR: int = lib.LSN_FAR

_DRAIN_ITEMS = 512
_DRAIN_BYTES = 1 << 20


class Kind(enum.IntEnum):
    """What a drained item is."""

    AUDIO = lib.LSN_AUDIO
    DIGIT = lib.LSN_DIGIT
    END = lib.LSN_END
    MOVED = lib.LSN_MOVED


class Mix(enum.IntEnum):
    """Which tracks a frame carries."""

    MONO = lib.LSN_MONO
    STEREO = lib.LSN_STEREO
    MIXED = lib.LSN_MIXED


class State(enum.IntEnum):
    """Where a slot is in its life."""

    FREE = lib.LSN_FREE
    LIVE = lib.LSN_LIVE
    ENDED = lib.LSN_ENDED
    RELEASED = lib.LSN_RELEASED


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a drain hands out.

    `data` is 20 ms of audio (`AUDIO`), `level` the near track's RMS (0 … 32768), `silence` the
    samples of the near track that were filled in, `digit` and `duration` (timestamp units of
    8 kHz) a key press, `far` whether the far end pressed it, `pos` the position on the
    time-line in samples.
    """

    kind: Kind
    slot: int
    gen: int
    data: bytes
    level: int
    silence: int
    digit: str
    duration: int
    far: bool
    pos: int


@dataclass(frozen=True, slots=True)
class Flush:
    """A flush that took effect: at `from_ticks` played, playing goes on at `upto_ticks`."""

    to_bytes: int
    from_ticks: int
    upto_ticks: int


@dataclass(frozen=True, slots=True)
class PlayStatus:
    """The playback ring: ticks of 1/192000 s written and played, flushes done so far.

    Flush number n (from 0) stands at `flush[n % len(flush)]`; `room_bytes` is what is free.
    """

    written: int
    played: int
    flushes: int
    flush: tuple[Flush, ...]
    room_bytes: int


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """What a slot says of itself; times are CLOCK_MONOTONIC nanoseconds, `end_ns` 0 while live.

    `worker` is the one that it is assigned to, `reader` the one that is attached.
    """

    state: State
    gen: int
    worker: int
    reader: int
    rate_hz: int
    mix: Mix
    start_ns: int
    end_ns: int


def now_ns() -> int:
    """CLOCK_MONOTONIC in nanoseconds, the clock of all times in the arena."""
    return int(lib.lsn_now_ns())


def layout() -> int:
    """A number made of the memory layout; two builds that agree on it may share memory."""
    return int(lib.lsn_layout())


def _check(result: int, what: str) -> int:
    if result < 0:
        raise ShmError(-result, f"{what}: {os.strerror(-result)}")
    return int(result)


def _pcm(samples: Samples) -> Any:
    return ffi.from_buffer("int16_t[]", np.ascontiguousarray(samples, dtype=np.int16))


class Arena:
    """One arena, as its creator (the switch's side) or as a mapping (a worker's side)."""

    def __init__(self, pointer: Any) -> None:
        self._a = ffi.gc(pointer, lib.lsn_arena_free)
        self._items = ffi.new("struct lsn_item[]", _DRAIN_ITEMS)
        self._pcm = ffi.new("uint8_t[]", _DRAIN_BYTES)
        self._pcm_view = memoryview(ffi.buffer(self._pcm))
        self._u32 = ffi.new("uint32_t *")

    @classmethod
    def create(cls, slots: int, ring_ms: int) -> Arena:
        """Makes an arena. Raises ShmError (EINVAL) for numbers out of range."""
        out = ffi.new("struct lsn_arena **")
        config = ffi.new("struct lsn_config *", {"slots": slots, "ring_ms": ring_ms})
        _check(lib.lsn_arena_create(out, config), "cannot create the arena")
        return cls(out[0])

    @classmethod
    def map(cls, fd: int) -> Arena:
        """Maps a descriptor from the handoff socket, which stays the caller's.

        Raises ShmError: EPROTO (not an arena), ENOTSUP (made by another ABI).
        """
        out = ffi.new("struct lsn_arena **")
        _check(lib.lsn_arena_map(out, fd), "cannot map the arena")
        return cls(out[0])

    def close(self) -> None:
        """Unmaps the memory; any other method raises TypeError after this, and touches nothing."""
        pointer, self._a = self._a, None
        ffi.release(pointer)

    @property
    def fd(self) -> int:
        """The memfd of a created arena, -1 in a mapping."""
        return int(lib.lsn_arena_fd(self._a))

    @property
    def size(self) -> int:
        """Size of the memory in bytes (sparse: pages come into being when touched)."""
        return int(lib.lsn_arena_size(self._a))

    @property
    def slots(self) -> int:
        """Number of slots, that is of listens at one time."""
        return int(lib.lsn_arena_slots(self._a))

    @property
    def ring_ms(self) -> int:
        """Audio that a capture ring holds, in milliseconds."""
        return int(lib.lsn_arena_ring_ms(self._a))

    # Either side.

    def info(self, slot: int) -> SlotInfo:
        """What the slot says of itself."""
        raw = ffi.new("struct lsn_info *")
        _check(lib.lsn_slot_info(self._a, slot, raw), f"slot {slot}")
        return SlotInfo(
            State(raw.state),
            raw.gen,
            raw.worker,
            raw.reader,
            raw.rate,
            Mix(raw.mix),
            raw.start_ns,
            raw.end_ns,
        )

    def counters(self, slot: int) -> Mapping[str, int]:
        """All counters of the slot; those per track as `<name>_near` and `<name>_far`."""
        raw = ffi.new("struct lsn_counters *")
        _check(lib.lsn_slot_counters(self._a, slot, raw), f"slot {slot}")
        out: dict[str, int] = {}
        for name in ("captured", "dropped", "trimmed", "late"):
            out[f"{name}_near"], out[f"{name}_far"] = getattr(raw, name)
        for name in (
            "filled",
            "sent",
            "played_ticks",
            "flushed_ticks",
            "digits_dropped",
            "corrupt",
        ):
            out[name] = getattr(raw, name)
        return out

    # The switch's side.

    def open_slot(self, slot: int, rate_hz: int, mix: Mix, worker: int, at_ns: int) -> int:
        """Begins a listen in a free slot; returns the slot's new generation."""
        opening = ffi.new(
            "struct lsn_open *",
            {"rate": rate_hz, "mix": mix, "worker": worker, "now_ns": at_ns},
        )
        _check(lib.lsn_slot_open(self._a, slot, opening, self._u32), f"cannot open slot {slot}")
        return int(self._u32[0])

    def assign(self, slot: int, worker: int) -> None:
        """Gives the slot to a worker, or to `NO_WORKER`."""
        _check(lib.lsn_slot_assign(self._a, slot, worker), f"cannot assign slot {slot}")

    def evict(self, slot: int, worker: int) -> None:
        """Forgets that a worker reads the slot, because it is dead."""
        _check(lib.lsn_slot_evict(self._a, slot, worker), f"cannot evict from slot {slot}")

    def end_slot(self, slot: int, at_ns: int) -> None:
        """Ends the listen; no capture or playback call may follow."""
        _check(lib.lsn_slot_end(self._a, slot, at_ns), f"cannot end slot {slot}")

    def reclaim(self, slot: int) -> None:
        """Frees an ended slot and gives its memory back."""
        _check(lib.lsn_slot_reclaim(self._a, slot), f"cannot reclaim slot {slot}")

    def capture(self, slot: int, track: int, heard_ns: int, samples: Samples) -> bool:
        """Appends audio whose last sample was heard at `heard_ns`; False = dropped, counted."""
        result = lib.lsn_capture(self._a, slot, track, heard_ns, _pcm(samples), len(samples))
        return bool(result == 0)

    def digit(self, slot: int, at_ns: int, digit: str, duration: int, far: bool) -> bool:
        """Appends a key press; False = dropped and counted."""
        return bool(lib.lsn_digit(self._a, slot, at_ns, digit.encode("ascii"), duration, far) == 0)

    def bell(self, slot: int) -> int | None:
        """The worker whose doorbell must be rung after an append, or None."""
        return int(self._u32[0]) if lib.lsn_bell(self._a, slot, self._u32) else None

    def play_rate(self, slot: int) -> int:
        """Carries out flushes; the rate in Hz of the audio that comes next, 0 if none."""
        return int(lib.lsn_play_rate(self._a, slot))

    def play_read(self, slot: int, max_samples: int) -> Samples:
        """Reads (and so counts as played) up to `max_samples` of one rate."""
        out = np.empty(max_samples, dtype=np.int16)
        got = lib.lsn_play_read(self._a, slot, ffi.from_buffer("int16_t[]", out), max_samples)
        return out[:got]

    def play_pending(self, slot: int) -> bool:
        """Whether audio waits to be played."""
        return bool(lib.lsn_play_pending(self._a, slot))

    # The worker's side.

    def attach(self, slot: int, gen: int, worker: int) -> None:
        """Begins to drain a slot; its flow of frames is closed until `flow` opens it.

        Raises ShmError: ESTALE if the slot is no longer that listen, or not this worker's; EBUSY
        while another worker still reads it.
        """
        _check(lib.lsn_attach(self._a, slot, gen, worker), f"cannot attach slot {slot}")

    def detach(self, slot: int, gen: int) -> None:
        """Stops draining and leaves the slot to another worker."""
        _check(lib.lsn_detach(self._a, slot, gen), f"cannot detach slot {slot}")

    def release(self, slot: int, gen: int) -> None:
        """Stops draining for good. Raises ShmError if the switch took the slot back already."""
        _check(lib.lsn_release(self._a, slot, gen), f"cannot release slot {slot}")

    def flow(self, slot: int, gen: int, is_open: bool) -> None:
        """Opens or closes the flow of frames; audio gathers in the ring while it is closed."""
        _check(lib.lsn_flow(self._a, slot, gen, is_open), f"slot {slot}")

    def discard(self, slot: int, gen: int, at_ns: int) -> int:
        """Gives up what the rings hold now and later; returns samples per track given up."""
        return int(_check(lib.lsn_discard(self._a, slot, gen, at_ns), f"slot {slot}"))

    def trim(self, slot: int, gen: int, at_ns: int, keep_ms: int) -> int:
        """Gives up audio older than `keep_ms`; returns samples per track given up."""
        return int(_check(lib.lsn_trim(self._a, slot, gen, at_ns, keep_ms), f"slot {slot}"))

    def drain(self, at_ns: int) -> list[Item]:
        """Takes everything that is ready in all attached slots, in order within each slot."""
        out: list[Item] = []
        more = 1
        while more:
            count = lib.lsn_drain(
                self._a, at_ns, self._items, _DRAIN_ITEMS, self._pcm, _DRAIN_BYTES, self._u32
            )
            more = self._u32[0]
            out.extend(self._item(self._items[i]) for i in range(count))
        return out

    def _item(self, raw: Any) -> Item:
        kind = Kind(raw.kind)
        return Item(
            kind,
            raw.slot,
            raw.gen,
            bytes(self._pcm_view[raw.offset : raw.offset + raw.bytes]) if raw.bytes else b"",
            raw.level,
            raw.silence,
            chr(raw.digit) if kind is Kind.DIGIT else "",
            raw.duration,
            bool(raw.far),
            raw.pos,
        )

    def arm(self, worker: int) -> bool:
        """Arms the doorbell. False: something came meanwhile, drain again first."""
        return _check(lib.lsn_arm(self._a, worker), "cannot arm the doorbell") == 0

    def play_write(self, slot: int, gen: int, rate_hz: int, samples: Samples) -> tuple[int, bool]:
        """Appends audio to play; returns the samples taken, and whether to kick the switch."""
        taken = lib.lsn_play_write(
            self._a, slot, gen, rate_hz, _pcm(samples), len(samples), self._u32
        )
        return _check(taken, f"cannot play in slot {slot}"), bool(self._u32[0])

    def play_flush(self, slot: int, gen: int) -> None:
        """Discards all audio written so far, and none that is written later."""
        _check(lib.lsn_play_flush(self._a, slot, gen), f"slot {slot}")

    def play_status(self, slot: int, gen: int) -> PlayStatus:
        """How far playback has come."""
        raw = ffi.new("struct lsn_play_status *")
        _check(lib.lsn_play_status(self._a, slot, gen, raw), f"slot {slot}")
        flushes = tuple(Flush(f.to, getattr(f, "from"), f.upto) for f in raw.flush)
        return PlayStatus(raw.written, raw.played, raw.flushes, flushes, raw.room)
