"""The picture of a call: there, legible, and of what was heard."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pylisten.simulator.picture import draw_call
from pylisten.simulator.timeline import Moment
from tests.support.tones import silence, tone

RATE_HZ = 8000
BLUE, ORANGE, RED, GREEN = (35, 105, 175), (214, 98, 28), (186, 40, 40), (44, 128, 76)
LANES_LEFT = 130
Pixels = npt.NDArray[np.uint8]


def picture(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def where(pixels: Pixels, colour: tuple[int, int, int]) -> tuple[npt.NDArray[np.int64], ...]:
    """Rows and columns of the pixels of a colour, or nearly of it."""
    away = np.abs(pixels.astype(int) - np.array(colour)).max(axis=2)
    return tuple(np.nonzero(away < 40))


def test_each_party_has_a_lane_and_sounds_where_it_spoke(tmp_path: Path) -> None:
    speech, rest = tone(500, 500, RATE_HZ), silence(1500, RATE_HZ)
    caller, bot = np.concatenate((speech, rest)), np.concatenate((rest, speech))
    draw_call(tmp_path / "call.png", caller, bot, RATE_HZ, [], "a call")
    pixels = picture(tmp_path / "call.png")
    width = pixels.shape[1]
    caller_rows, caller_columns = where(pixels, BLUE)
    bot_rows, bot_columns = where(pixels, ORANGE)
    assert caller_rows.max() < bot_rows.min(), "the caller is above the bot"
    wave = caller_columns[caller_columns > 130]
    assert np.median(wave) < width * 0.4
    assert np.median(bot_columns[bot_columns > 130]) > width * 0.7


def test_moments_are_marked_at_their_time_and_labelled(tmp_path: Path) -> None:
    quiet = silence(2000, RATE_HZ)
    moments = [Moment(500, "connected", "connected"), Moment(1500, "end", "end: closed")]
    draw_call(tmp_path / "with.png", quiet, quiet, RATE_HZ, moments, "a call")
    pixels = picture(tmp_path / "with.png")
    lanes = pixels[60:-60, LANES_LEFT:]  # without title and axis
    green = np.unique(where(lanes, GREEN)[1])
    red = np.unique(where(lanes, RED)[1])
    span = pixels.shape[1] - LANES_LEFT - 40
    assert green.min() == pytest.approx(span * 0.25, abs=3)
    assert red.min() == pytest.approx(span * 0.75, abs=3)
    assert len(green) > 40, "there is a label beside the line"


def test_labels_of_one_moment_do_not_cover_each_other(tmp_path: Path) -> None:
    quiet = silence(2000, RATE_HZ)
    one = [Moment(1990, "end", "end")]
    many = [Moment(1990 + n, "end", "end") for n in range(6)]
    draw_call(tmp_path / "one.png", quiet, quiet, RATE_HZ, one, "a call")
    draw_call(tmp_path / "many.png", quiet, quiet, RATE_HZ, many, "a call")
    taller = picture(tmp_path / "many.png").shape[0] - picture(tmp_path / "one.png").shape[0]
    assert taller >= 5 * 20


@pytest.mark.parametrize("samples", [0, 1, 159, 8000 * 600])
def test_any_length_makes_a_picture(tmp_path: Path, samples: int) -> None:
    quiet = np.zeros(samples, np.int16)
    draw_call(tmp_path / "call.png", quiet, quiet, RATE_HZ, [Moment(5, "end", "end")], "a call")
    assert picture(tmp_path / "call.png").shape[1] == 1600
