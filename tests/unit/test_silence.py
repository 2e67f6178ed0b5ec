"""Silence, from the level of frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylisten.silence import SilenceDetector

FRAME = 160  # 20 ms at 8000 Hz
QUIET, LOUD = 0, 10_000


def feed(detector: SilenceDetector, level: int, ms: int) -> float:
    """Frames of one level; returns what the last one was answered with."""
    answers = [detector.feed(FRAME, level) for _ in range(ms // 20)]
    return answers[-1]


def test_silence_counts_from_the_first_frame() -> None:
    """A caller who never says a word is silent."""
    assert feed(SilenceDetector(8000), QUIET, 3000) == 3.0


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000, 32000, 48000, 64000])
def test_time_is_that_of_the_samples(rate_hz: int) -> None:
    """A second is a second at every rate."""
    detector = SilenceDetector(rate_hz)
    assert [detector.feed(rate_hz // 50, QUIET) for _ in range(50)][-1] == 1.0


@pytest.mark.parametrize(
    ("dbfs", "level", "loud"),
    [(-40, 327, False), (-40, 328, True), (-20, 3276, False), (-20, 3277, True), (0, 32767, True)],
)
def test_threshold_is_a_level_in_decibels(dbfs: float, level: int, loud: bool) -> None:
    """0 dBFS is the loudest frame there can be."""
    detector = SilenceDetector(8000, threshold_dbfs=dbfs)
    assert (feed(detector, level, 1000) == 0) is loud


def test_speech_ends_silence_after_the_attack() -> None:
    """40 ms in a row are speech; 20 ms are not yet."""
    detector = SilenceDetector(8000)
    feed(detector, QUIET, 1000)
    assert feed(detector, LOUD, 20) == 1.02
    assert feed(detector, LOUD, 20) == 0


def test_clicks_are_not_speech() -> None:
    """However many of them, if they do not follow each other."""
    detector = SilenceDetector(8000)
    for _ in range(10):
        feed(detector, LOUD, 20)
        feed(detector, QUIET, 20)
    assert feed(detector, QUIET, 100) == 0.5


def test_pause_between_words_is_not_silence() -> None:
    """It has to outlast the hang-over."""
    detector = SilenceDetector(8000)
    feed(detector, LOUD, 100)
    assert feed(detector, QUIET, 180) == 0
    assert feed(detector, LOUD, 20) == 0
    assert feed(detector, QUIET, 180) == 0


def test_silence_counts_from_the_last_loud_frame() -> None:
    """The hang-over is part of it."""
    detector = SilenceDetector(8000)
    feed(detector, LOUD, 100)
    assert feed(detector, QUIET, 200) == 0.2
    assert feed(detector, QUIET, 800) == 1.0


def test_click_in_the_hang_over_is_still_speech() -> None:
    """The attack is for silence only: a last syllable may be short."""
    detector = SilenceDetector(8000)
    feed(detector, LOUD, 100)
    feed(detector, QUIET, 180)
    feed(detector, LOUD, 20)
    assert feed(detector, QUIET, 200) == 0.2


def test_speech_after_silence_needs_the_attack_again() -> None:
    """Loud frames of long ago do not count."""
    detector = SilenceDetector(8000)
    feed(detector, LOUD, 100)
    feed(detector, QUIET, 200)
    assert feed(detector, LOUD, 20) == 0.22
    assert feed(detector, QUIET, 20) == 0.24
    assert feed(detector, LOUD, 40) == 0


def test_attack_and_hang_over_can_be_set() -> None:
    """Both in milliseconds."""
    detector = SilenceDetector(8000, attack_ms=100, hangover_ms=400)
    assert feed(detector, LOUD, 80) == 0.08
    assert feed(detector, LOUD, 20) == 0
    assert feed(detector, QUIET, 380) == 0
    assert feed(detector, QUIET, 20) == 0.4


def test_restart_begins_silence_anew() -> None:
    """Speech before it has no hang-over behind it."""
    detector = SilenceDetector(8000)
    feed(detector, LOUD, 100)
    detector.restart()
    assert feed(detector, QUIET, 20) == 0.02
    feed(detector, LOUD, 20)
    detector.restart()
    assert feed(detector, LOUD, 20) == 0.02


@given(st.lists(st.sampled_from([QUIET, LOUD]), max_size=60))
def test_silence_never_lasts_longer_than_since_two_loud_frames(levels: list[int]) -> None:
    """Whatever is said: 40 ms of it end all silence, and without them it only grows."""
    detector = SilenceDetector(8000)
    silent_ms = loud_ms = 0
    for level in levels:
        loud_ms = loud_ms + 20 if level == LOUD else 0
        silent_ms = 0 if loud_ms >= 40 else silent_ms + 20
        answer = detector.feed(FRAME, level)
        assert answer == 0 or answer <= silent_ms / 1000
        if loud_ms >= 40:
            assert answer == 0
