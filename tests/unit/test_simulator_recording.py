"""Rendering what was heard: in place, at any rate, without seams."""

import numpy as np
import pytest

from pylisten.simulator.recording import TICKS_HZ, Recording, mix, resample
from tests.support.tones import dominant_hz, level_dbfs, silence, tone

RATES_HZ = (8000, 16000, 24000, 32000, 48000, 64000)


@pytest.mark.parametrize("to_hz", RATES_HZ)
@pytest.mark.parametrize("from_hz", [8000, 11025, 44100, 48000])
def test_resampling_keeps_length_pitch_and_level(from_hz: int, to_hz: int) -> None:
    out = resample(tone(440, 500, from_hz), from_hz, to_hz)
    assert len(out) == pytest.approx(to_hz / 2, abs=to_hz / from_hz + 1)
    assert dominant_hz(out, to_hz) == pytest.approx(440, rel=0.01)
    assert level_dbfs(out) == pytest.approx(-12, abs=0.5)


def test_full_scale_saturates_and_does_not_wrap() -> None:
    square = np.where(np.arange(4800) % 96 < 48, 32767, -32768).astype(np.int16)
    out = resample(square, 48000, 8000)
    assert out.max() == 32767
    middle = out[400:412].astype(np.int32)
    assert abs(np.diff(middle)).max() < 65536, "a wrap would jump across the whole range twice"
    loud = np.full(160, 30000, np.int16)
    assert mix([loud, loud], 160).max() == 32767
    assert mix([-loud, -loud], 160).min() == -32768


def test_tracks_of_different_length_are_padded_with_silence() -> None:
    assert mix([], 3).tolist() == [0, 0, 0]
    assert mix([np.array([1, 2], np.int16), np.array([1], np.int16)], 3).tolist() == [2, 2, 0]


def test_passages_stand_where_they_were_heard() -> None:
    recording = Recording()
    second = TICKS_HZ
    recording.add("a", second // 2, 8000, tone(400, 250, 8000))
    recording.add("a", second, 48000, tone(800, 250, 48000))
    heard = recording.render(16000, 2 * second)
    assert len(heard) == 32000
    assert recording.passages == [(0.5, 0.75), (1.0, 1.25)]
    assert level_dbfs(heard[:7900]) < -80
    assert dominant_hz(heard[8000:12000], 16000) == pytest.approx(400, rel=0.01)
    assert level_dbfs(heard[12100:15900]) < -60
    assert dominant_hz(heard[16000:20000], 16000) == pytest.approx(800, rel=0.01)


def test_frames_that_follow_one_another_have_no_seam() -> None:
    recording = Recording()
    whole = tone(1000, 400, 8000)
    for n in range(20):
        recording.add("a", n * TICKS_HZ // 50, 8000, whole[n * 160 : (n + 1) * 160])
    assert len(recording.passages) == 1
    assert np.array_equal(recording.render(16000, TICKS_HZ * 2 // 5), resample(whole, 8000, 16000))


def test_sources_that_sound_together_are_added() -> None:
    recording = Recording()
    recording.add("a", 0, 8000, np.full(160, 1000, np.int16))
    recording.add("b", 0, 8000, np.full(160, 234, np.int16))
    assert set(recording.render(8000, TICKS_HZ // 50)) == {1234}


def test_what_lies_beyond_the_end_is_left_out() -> None:
    recording = Recording()
    recording.add("a", 0, 8000, silence(1000, 8000) + np.int16(5))
    assert len(recording.render(8000, TICKS_HZ // 10)) == 800
