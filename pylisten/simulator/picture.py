"""A call as a picture: both waveforms on one clock, with what happened written above them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pylisten.simulator.recording import Samples
from pylisten.simulator.timeline import Moment

__all__ = ["draw_call"]

Colour = tuple[int, int, int]

# Drawn at twice the size and scaled down: the cheapest way to smooth edges.
_SCALE: Final = 2
_WIDTH: Final = 1600
_MARGIN: Final = 40
_LANES_LEFT: Final = 130
_LANE_HEIGHT: Final = 190
_LANE_GAP: Final = 34
_TITLE_HEIGHT: Final = 74
_AXIS_HEIGHT: Final = 56
_LABEL_ROW: Final = 25
_LABEL_ROWS_MAX: Final = 14

_PAPER: Final = (250, 250, 247)
_LANE: Final = (240, 240, 235)
_INK: Final = (38, 42, 48)
_FAINT: Final = (150, 152, 150)
_GRID: Final = (222, 222, 216)
_CALLER: Final = (35, 105, 175)
_BOT: Final = (214, 98, 28)
_GOOD: Final = (44, 128, 76)
_BAD: Final = (186, 40, 40)

_EVENT_COLOURS: Final = {"connected": _GOOD, "playAudio": _BOT, "playDone": _BOT, "end": _BAD}

_WINDOW_MS: Final = 4  # on either side of a column: single waves are not shown

# What the waveform shows by itself.
_NOT_LABELLED: Final = frozenset({"bot heard"})

# Loudest sample that is still drawn at full height; quiet calls are enlarged to that.
_QUIETEST_PEAK: Final = 2000


class _Canvas:
    """A picture in units of final pixels, with text and lines."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self._image = Image.new("RGB", (width * _SCALE, height * _SCALE), _PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self._draw.rectangle([_SCALE * v for v in (left, top, right, bottom)], fill=colour)

    def line(
        self, left: float, top: float, right: float, bottom: float, colour: Colour, width: float = 1
    ) -> None:
        points = [_SCALE * v for v in (left, top, right, bottom)]
        self._draw.line(points, fill=colour, width=max(1, round(width * _SCALE)))

    def text(
        self, x: float, y: float, text: str, colour: Colour, size: int, anchor: str = "la"
    ) -> None:
        self._draw.text((x * _SCALE, y * _SCALE), text, colour, _font(size), anchor)

    def text_width(self, text: str, size: int) -> float:
        return float(self._draw.textlength(text, _font(size))) / _SCALE

    def save(self, path: Path) -> None:
        self._image.resize(self.size, Image.Resampling.LANCZOS).save(path, optimize=True)


def draw_call(
    path: Path,
    caller: Samples,
    bot: Samples,
    rate_hz: int,
    moments: Sequence[Moment],
    title: str,
) -> None:
    """Writes a PNG with the waveform of the caller above that of the bot.

    Both are int16 mono at ``rate_hz`` and of equal length; ``moments`` are marked in both and
    labelled above. Raises OSError if ``path`` cannot be written.
    """
    duration_s = max(len(caller) / rate_hz, 0.02)
    moments = [moment for moment in moments if moment.label not in _NOT_LABELLED]
    rows = _label_rows(moments, duration_s)
    lanes_top = _TITLE_HEIGHT + (max(rows, default=0) + 1) * _LABEL_ROW + 12
    height = lanes_top + 2 * _LANE_HEIGHT + _LANE_GAP + _AXIS_HEIGHT
    canvas = _Canvas(_WIDTH, height)
    canvas.text(_MARGIN, 22, title, _INK, 26)
    bottom = lanes_top + 2 * _LANE_HEIGHT + _LANE_GAP
    peak = max(_peak(caller), _peak(bot), _QUIETEST_PEAK)
    lanes = (
        (lanes_top, caller, "caller", _CALLER),
        (lanes_top + _LANE_HEIGHT + _LANE_GAP, bot, "bot", _BOT),
    )
    for top, _, _, _ in lanes:
        canvas.box(_LANES_LEFT, top, _WIDTH - _MARGIN, top + _LANE_HEIGHT, _LANE)
    _draw_axis(canvas, duration_s, lanes_top, bottom)
    for top, samples, name, colour in lanes:
        _draw_wave(canvas, samples, rate_hz, top, peak, colour)
        canvas.text(_MARGIN, top + _LANE_HEIGHT / 2, name, colour, 22, "lm")
    for moment, row in zip(moments, rows, strict=True):
        _draw_moment(canvas, moment, duration_s, _TITLE_HEIGHT + row * _LABEL_ROW, bottom)
    canvas.save(path)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * _SCALE)


def _blend(colour: Colour, other: Colour) -> Colour:
    red, green, blue = ((a + b) // 2 for a, b in zip(colour, other, strict=True))
    return red, green, blue


def _x(at_s: float, duration_s: float) -> float:
    return _LANES_LEFT + (_WIDTH - _MARGIN - _LANES_LEFT) * min(at_s / duration_s, 1.0)


def _peak(samples: Samples) -> int:
    return int(np.abs(samples.astype(np.int32)).max(initial=0))


def _label(moment: Moment) -> str:
    return f"{moment.at_ms / 1000:.2f} s  {moment.label}"


def _label_rows(moments: Sequence[Moment], duration_s: float) -> list[int]:
    """A row for each label, so that none covers another, nor the line of a later moment."""
    scratch = _Canvas(1, 1)
    free_from = [0.0] * _LABEL_ROWS_MAX
    rows: list[int] = []
    for moment in moments:
        begin, end = _label_span(scratch, moment, duration_s)
        fitting = [row for row, free in enumerate(free_from) if begin >= free]
        row = fitting[0] if fitting else int(np.argmin(free_from))
        free_from[row] = end + 14
        rows.append(row)
    return rows


def _label_span(canvas: _Canvas, moment: Moment, duration_s: float) -> tuple[float, float]:
    """Left and right edge of a label: right of its line, left of it at the picture's end."""
    width = canvas.text_width(_label(moment), 16)
    x = _x(moment.at_ms / 1000, duration_s)
    left = x + 5 if x + 5 + width <= _WIDTH - 8 else x - 5 - width
    return left, left + width


def _draw_moment(
    canvas: _Canvas, moment: Moment, duration_s: float, top: float, bottom: float
) -> None:
    colour = _EVENT_COLOURS.get(moment.label, _INK)
    x = _x(moment.at_ms / 1000, duration_s)
    canvas.line(x, top + 2, x, bottom, colour, 1.5)
    left, right = _label_span(canvas, moment, duration_s)
    canvas.box(left - 2, top, right + 2, top + _LABEL_ROW - 4, _PAPER)
    canvas.text(left, top + 2, _label(moment), colour, 16)


def _draw_axis(canvas: _Canvas, duration_s: float, top: float, bottom: float) -> None:
    step_s = next(
        (s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300) if duration_s / s <= 16), 900
    )
    for n in range(int(duration_s / step_s + 1e-6) + 1):
        at_s = n * step_s
        x = _x(at_s, duration_s)
        canvas.line(x, top, x, bottom, _GRID)
        canvas.line(x, bottom, x, bottom + 7, _FAINT, 1.5)
        canvas.text(x, bottom + 12, f"{at_s:g} s", _FAINT, 16, "ma")


def _draw_wave(
    canvas: _Canvas, samples: Samples, rate_hz: int, top: float, peak: int, colour: Colour
) -> None:
    """The envelope, pale, and within it, strong, the loudness as it is heard (RMS)."""
    pale = _blend(colour, _LANE)
    middle = top + _LANE_HEIGHT / 2
    reach = (_LANE_HEIGHT / 2 - 6) / peak
    columns = (_WIDTH - _MARGIN - _LANES_LEFT) * _SCALE
    wide = samples.astype(np.float64)
    edges = np.linspace(0, len(samples), columns + 1).astype(int)
    window = max(rate_hz * _WINDOW_MS // 1000, 1)
    for column, (begin, end) in enumerate(zip(edges, edges[1:], strict=False)):
        part = wide[max(begin - window, 0) : end + window]
        x = _LANES_LEFT + column / _SCALE
        high, low = part.max(initial=0) * reach, part.min(initial=0) * reach
        canvas.line(x, middle - max(high, 0.5), x, middle - min(low, -0.5), pale, 0.5)
        loudness = float(np.sqrt(np.mean(part**2))) * reach if len(part) else 0.0
        canvas.line(x, middle - max(loudness, 0.5), x, middle + max(loudness, 0.5), colour, 0.5)
