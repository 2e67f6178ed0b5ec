"""The Python face of the shared memory: what callers of `pylisten.shm` rely on.

The rules of rings and frames have their own tests in C; here it is errors, types and copies,
and that two processes really share the memory.
"""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from pylisten import shm
from pylisten.errors import ShmError

MS = 1_000_000  # in nanoseconds
SLOT, WORKER = 1, 3


@pytest.fixture
def switch() -> Iterator[shm.Arena]:
    """An arena as its creator has it."""
    arena = shm.Arena.create(slots=4, ring_ms=1000)
    yield arena
    arena.close()


@pytest.fixture
def worker(switch: shm.Arena) -> Iterator[shm.Arena]:
    """The same arena as a worker has it."""
    arena = shm.Arena.map(switch.fd)
    yield arena
    arena.close()


def ramp(samples: int, first: int = 1) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    """Samples that count, so that each can be told from its neighbours."""
    return np.arange(first, first + samples, dtype=np.int16)


def open_listen(
    switch: shm.Arena, worker: shm.Arena, rate_hz: int = 8000, mix: shm.Mix = shm.Mix.MONO
) -> tuple[int, int]:
    """Opens a slot with the flow open; returns its generation and start."""
    start_ns = shm.now_ns()
    gen = switch.open_slot(SLOT, rate_hz, mix, WORKER, start_ns)
    worker.attach(SLOT, gen, WORKER)
    worker.flow(SLOT, gen, True)
    return gen, start_ns


def test_create_tells_its_size() -> None:
    arena = shm.Arena.create(slots=2, ring_ms=500)
    assert (arena.slots, arena.ring_ms) == (2, 500)
    assert arena.size == os.fstat(arena.fd).st_size
    arena.close()


@pytest.mark.parametrize(("slots", "ring_ms"), [(0, 1000), (4097, 1000), (1, 199), (1, 60001)])
def test_create_refuses_numbers_out_of_range(slots: int, ring_ms: int) -> None:
    with pytest.raises(ShmError) as caught:
        shm.Arena.create(slots, ring_ms)
    assert caught.value.errno == errno.EINVAL


def test_map_refuses_what_is_no_arena() -> None:
    fd = os.memfd_create("test")
    try:
        with pytest.raises(ShmError) as caught:
            shm.Arena.map(fd)
    finally:
        os.close(fd)
    assert caught.value.errno == errno.EPROTO
    assert isinstance(caught.value, OSError)


def test_mapping_outlives_the_creator() -> None:
    """The death of the switch must not make a worker fault: it reads what was there."""
    switch = shm.Arena.create(slots=4, ring_ms=1000)
    worker = shm.Arena.map(switch.fd)
    gen, start_ns = open_listen(switch, worker)
    switch.capture(SLOT, shm.NEAR, start_ns + 20 * MS, ramp(160))
    switch.end_slot(SLOT, start_ns + 20 * MS)
    switch.close()
    kinds = [item.kind for item in worker.drain(start_ns + 20 * MS)]
    assert kinds == [shm.Kind.AUDIO, shm.Kind.END]
    worker.release(SLOT, gen)
    assert worker.info(SLOT).state is shm.State.RELEASED
    worker.close()


def test_closed_arena_raises_instead_of_touching_memory() -> None:
    arena = shm.Arena.create(slots=1, ring_ms=200)
    arena.close()
    with pytest.raises(TypeError):
        arena.info(0)


def test_frame_has_bytes_level_and_place(switch: shm.Arena, worker: shm.Arena) -> None:
    gen, start_ns = open_listen(switch, worker)
    samples = ramp(320, first=-100)
    assert switch.capture(SLOT, shm.NEAR, start_ns + 40 * MS, samples)
    first, second = worker.drain(start_ns + 40 * MS)
    assert (first.kind, first.slot, first.gen, first.pos) == (shm.Kind.AUDIO, SLOT, gen, 0)
    assert first.data + second.data == samples.tobytes()
    level = int(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))  # of the record it came in
    assert (first.level, first.silence) == (level, 0)
    assert second.pos == 160


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000, 32000, 48000, 64000])
def test_stereo_frame_is_near_left_far_right(
    switch: shm.Arena, worker: shm.Arena, rate_hz: int
) -> None:
    _, start_ns = open_listen(switch, worker, rate_hz, shm.Mix.STEREO)
    near, far = ramp(rate_hz // 50), ramp(rate_hz // 50, first=-5000)
    switch.capture(SLOT, shm.NEAR, start_ns + 20 * MS, near)
    switch.capture(SLOT, shm.FAR, start_ns + 20 * MS, far)
    (frame,) = worker.drain(start_ns + 20 * MS)
    assert np.array_equal(np.frombuffer(frame.data, "<i2")[0::2], near)
    assert np.array_equal(np.frombuffer(frame.data, "<i2")[1::2], far)


def test_capture_takes_a_view_with_gaps(switch: shm.Arena, worker: shm.Arena) -> None:
    """One channel of an interleaved array is not contiguous in memory."""
    _, start_ns = open_listen(switch, worker)
    interleaved = ramp(320)
    switch.capture(SLOT, shm.NEAR, start_ns + 20 * MS, interleaved[1::2])
    (frame,) = worker.drain(start_ns + 20 * MS)
    assert frame.data == np.ascontiguousarray(interleaved[1::2]).tobytes()


def test_frames_are_copies(switch: shm.Arena, worker: shm.Arena) -> None:
    """What was drained does not change when the ring goes round."""
    _, start_ns = open_listen(switch, worker)
    switch.capture(SLOT, shm.NEAR, start_ns + 20 * MS, ramp(160))
    (kept,) = worker.drain(start_ns + 20 * MS)
    for n in range(2, 200):
        switch.capture(SLOT, shm.NEAR, start_ns + n * 20 * MS, ramp(160, first=7000))
        worker.drain(start_ns + n * 20 * MS)
    assert kept.data == ramp(160).tobytes()


def test_digit_has_all_that_the_wire_needs(switch: shm.Arena, worker: shm.Arena) -> None:
    gen, start_ns = open_listen(switch, worker)
    assert switch.digit(SLOT, start_ns + 1000 * MS, "#", 1600, True)
    (item,) = worker.drain(start_ns)
    assert (item.kind, item.gen, item.digit, item.duration, item.far, item.pos) == (
        shm.Kind.DIGIT,
        gen,
        "#",
        1600,
        True,
        8000,
    )
    assert item.data == b""


def test_drain_takes_more_than_one_batch(switch: shm.Arena) -> None:
    """A long ring of the highest rate is larger than the buffer of one call."""
    start_ns = shm.now_ns()
    arena = shm.Arena.create(slots=1, ring_ms=20000)
    mapped = shm.Arena.map(arena.fd)
    gen = arena.open_slot(0, 64000, shm.Mix.STEREO, WORKER, start_ns)
    mapped.attach(0, gen, WORKER)
    for n in range(1, 901):
        for track in (shm.NEAR, shm.FAR):
            assert arena.capture(0, track, start_ns + n * 20 * MS, ramp(1280))
    mapped.flow(0, gen, True)
    items = mapped.drain(start_ns + 900 * 20 * MS)
    assert [item.pos for item in items] == [n * 1280 for n in range(900)]
    mapped.close()
    arena.close()


def test_stale_generation_is_refused(switch: shm.Arena, worker: shm.Arena) -> None:
    gen, start_ns = open_listen(switch, worker)
    switch.end_slot(SLOT, start_ns)
    worker.drain(start_ns)
    worker.release(SLOT, gen)
    switch.reclaim(SLOT)
    open_listen(switch, worker)
    with pytest.raises(ShmError) as caught:
        worker.play_write(SLOT, gen, 8000, ramp(160))
    assert caught.value.errno == errno.ESTALE


def test_live_slot_is_neither_opened_nor_reclaimed(switch: shm.Arena, worker: shm.Arena) -> None:
    open_listen(switch, worker)
    for attempt in (
        lambda: switch.open_slot(SLOT, 8000, shm.Mix.MONO, WORKER, shm.now_ns()),
        lambda: switch.reclaim(SLOT),
    ):
        with pytest.raises(ShmError) as caught:
            attempt()
        assert caught.value.errno == errno.EBUSY


def test_info_tells_what_was_opened(switch: shm.Arena, worker: shm.Arena) -> None:
    gen, start_ns = open_listen(switch, worker, 24000, shm.Mix.MIXED)
    info = worker.info(SLOT)
    assert info == shm.SlotInfo(
        shm.State.LIVE, gen, WORKER, WORKER, 24000, shm.Mix.MIXED, start_ns, end_ns=0
    )
    switch.assign(SLOT, shm.NO_WORKER)
    assert worker.info(SLOT).worker == shm.NO_WORKER


def test_bell_rings_once_per_arming(switch: shm.Arena, worker: shm.Arena) -> None:
    _, start_ns = open_listen(switch, worker)
    worker.drain(start_ns)
    assert worker.arm(WORKER)
    switch.digit(SLOT, start_ns, "1", 800, False)
    assert switch.bell(SLOT) == WORKER
    switch.digit(SLOT, start_ns, "2", 800, False)
    assert switch.bell(SLOT) is None
    assert not worker.arm(WORKER)  # something came: it must be drained first
    worker.drain(start_ns)
    assert worker.arm(WORKER)


def test_play_is_read_at_its_rate(switch: shm.Arena, worker: shm.Arena) -> None:
    gen, _ = open_listen(switch, worker)
    assert worker.play_write(SLOT, gen, 16000, ramp(1000)) == (1000, True)
    assert switch.play_pending(SLOT)
    assert switch.play_rate(SLOT) == 16000
    assert np.array_equal(switch.play_read(SLOT, 2000), ramp(1000))
    assert not switch.play_pending(SLOT)
    status = worker.play_status(SLOT, gen)
    assert (status.written, status.played) == (1000 * 12, 1000 * 12)


def test_full_playback_ring_takes_a_part(switch: shm.Arena, worker: shm.Arena) -> None:
    gen, _ = open_listen(switch, worker)
    samples = np.zeros(64000 * 4, dtype=np.int16)
    taken, _ = worker.play_write(SLOT, gen, 64000, samples)
    assert 64000 * 2 <= taken < len(samples)
    assert worker.play_status(SLOT, gen).room_bytes < 1280 * 2 + 32


def test_flush_tells_what_was_heard(switch: shm.Arena, worker: shm.Arena) -> None:
    gen, _ = open_listen(switch, worker)
    worker.play_write(SLOT, gen, 8000, ramp(800))
    switch.play_read(SLOT, 300)
    worker.play_flush(SLOT, gen)
    assert switch.play_rate(SLOT) == 0
    status = worker.play_status(SLOT, gen)
    assert status.flushes == 1
    assert (status.flush[0].from_ticks, status.flush[0].upto_ticks) == (300 * 24, 800 * 24)


def test_counters_name_their_track(switch: shm.Arena, worker: shm.Arena) -> None:
    _, start_ns = open_listen(switch, worker, mix=shm.Mix.STEREO)
    switch.capture(SLOT, shm.FAR, start_ns + 20 * MS, ramp(160))
    counters = worker.counters(SLOT)
    assert (counters["captured_near"], counters["captured_far"]) == (0, 160)
    assert counters["corrupt"] == 0


CHILD = """
import sys
import numpy as np
from pylisten import shm
fd, slot, gen, worker = map(int, sys.argv[1:])
arena = shm.Arena.map(fd)
arena.attach(slot, gen, worker)
arena.flow(slot, gen, True)
sys.stdout.write("attached\\n")
sys.stdout.flush()
sys.stdin.readline()
items = arena.drain(shm.now_ns())
arena.play_write(slot, gen, 8000, np.ones(160, dtype=np.int16))
sys.stdout.write(",".join(f"{i.kind.name}:{i.data[:2].hex()}" for i in items) + "\\n")
sys.stdout.flush()
sys.stdin.readline()
"""


def test_two_processes_share_it_and_one_is_killed(switch: shm.Arena, worker: shm.Arena) -> None:
    """A worker process is served, killed with SIGKILL, and another mapping goes on."""
    start_ns = shm.now_ns()
    gen = switch.open_slot(SLOT, 8000, shm.Mix.MONO, WORKER, start_ns)
    arguments = [str(n) for n in (switch.fd, SLOT, gen, WORKER)]
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        pass_fds=[switch.fd],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "attached\n"
        for n in (1, 2):
            switch.capture(SLOT, shm.NEAR, start_ns + n * 20 * MS, ramp(160, first=n * 256))
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "AUDIO:0001,AUDIO:0002\n"
        child.kill()
        child.wait()
    assert np.array_equal(switch.play_read(SLOT, 1000), np.ones(160, dtype=np.int16))
    switch.capture(SLOT, shm.NEAR, start_ns + 60 * MS, ramp(160, first=3 * 256))
    switch.assign(SLOT, WORKER + 1)
    with pytest.raises(ShmError) as caught:
        worker.attach(SLOT, gen, WORKER + 1)
    assert caught.value.errno == errno.EBUSY
    switch.evict(SLOT, WORKER)
    worker.attach(SLOT, gen, WORKER + 1)
    worker.flow(SLOT, gen, True)
    (frame,) = worker.drain(start_ns + 60 * MS)
    assert (frame.data[:2].hex(), frame.pos) == ("0003", 320)
