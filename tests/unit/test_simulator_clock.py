"""The media clock: 20 ms, for ever, whatever the event loop is busy with."""

import threading
import time

from pylisten import shm
from pylisten.simulator.clock import TICK_NS, MediaClock


def ticks_of(clock: MediaClock, count: int) -> list[int]:
    """The nominal times of the next ticks."""
    seen: list[int] = []
    enough = threading.Event()

    def ticker(now_ns: int) -> None:
        seen.append(now_ns)
        if len(seen) == count:
            enough.set()

    clock.add(ticker)
    assert enough.wait(20)
    clock.remove(ticker)
    return seen[:count]


def test_ticks_are_20_ms_apart_and_keep_up_with_time() -> None:
    clock = MediaClock()
    clock.start()
    begun_ns = clock.now_ns
    seen = ticks_of(clock, 50)
    came_ns = shm.now_ns()
    clock.stop()
    assert {later - earlier for earlier, later in zip(seen, seen[1:], strict=False)} == {TICK_NS}
    assert 0 <= seen[0] - begun_ns <= 10 * TICK_NS
    assert came_ns >= seen[-1], "no tick comes before its time"


def test_what_was_missed_is_made_up_for() -> None:
    clock = MediaClock()
    clock.start()
    with clock.lock:
        time.sleep(0.2)  # whoever holds the lock holds up the calls, but not time itself
    held_until_ns = shm.now_ns()
    seen = ticks_of(clock, 12)
    clock.stop()
    assert seen[0] <= held_until_ns
    assert {later - earlier for earlier, later in zip(seen, seen[1:], strict=False)} == {TICK_NS}


def test_nothing_ticks_after_the_stop() -> None:
    clock = MediaClock()
    clock.start()
    seen: list[int] = []
    clock.add(seen.append)
    clock.stop()
    count = len(seen)
    time.sleep(0.05)
    assert len(seen) == count


def test_a_clock_that_never_ran_can_be_stopped() -> None:
    MediaClock().stop()
