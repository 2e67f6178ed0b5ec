"""``pylisten demo``: a call, a worker and a bot in one process, in ten seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from pylisten.simulator.echo import EchoBot
from pylisten.simulator.recording import Samples
from pylisten.simulator.simulate import run_call

__all__ = ["caller_audio", "demo"]

RATE_HZ: Final = 16_000
GREETING_S: Final = 1.5  # the caller lets the bot greet first
ANSWER_S: Final = 1.9  # and gives it time to repeat each sentence
_LAST_S: Final = 2.5

# What the caller says: for each syllable length in seconds, pitch in Hz at its beginning and end,
# and the two lowest resonances of the vowel in Hz.
_Syllable = tuple[float, float, float, float, float]
_SENTENCES: Final[tuple[tuple[_Syllable, ...], ...]] = (
    ((0.18, 150, 190, 600, 1800), (0.30, 190, 120, 450, 900)),
    ((0.16, 140, 150, 730, 1100), (0.15, 160, 170, 300, 2300), (0.32, 175, 215, 500, 1800)),
    ((0.18, 165, 150, 570, 850), (0.34, 150, 95, 280, 2250)),
)


async def demo(*, out: Path) -> int:
    """Shows a call between a synthetic caller and an echo bot; returns the exit code.

    Leaves ``call.wav`` (caller left, bot right) and ``call.png`` in the directory ``out``.
    """
    caller = caller_audio()
    print(
        "A simulated call: a caller that says three things, a bot that greets it and repeats\n"
        "each, and between them a worker with the same code as on FreeSWITCH. It takes about"
        f" {len(caller) / RATE_HZ:.0f} s.\n"
    )
    async with EchoBot(utterances=len(_SENTENCES)) as bot:
        code = await run_call(
            caller, RATE_HZ, bot.url, verb={"sampleRate": RATE_HZ, "id": "demo"}, out=out
        )
    if code == 0:
        print(f"\nListen to {out / 'call.wav'} and look at {out / 'call.png'}.")
    return code


def caller_audio() -> Samples:
    """Sentences of a synthetic voice with pauses between them, at ``RATE_HZ``."""
    parts: list[Samples] = [_pause(GREETING_S)]
    for sentence in _SENTENCES:
        parts += [_syllable(*syllable) for syllable in sentence]
        parts.append(_pause(ANSWER_S))
    parts.append(_pause(_LAST_S - ANSWER_S))
    return np.concatenate(parts)


def _pause(length_s: float) -> Samples:
    return np.zeros(round(length_s * RATE_HZ), np.int16)


def _syllable(
    length_s: float, from_hz: float, to_hz: float, first_hz: float, second_hz: float
) -> Samples:
    """A vowel: the harmonics of a gliding pitch, each as loud as the resonances let it through."""
    count = round(length_s * RATE_HZ)
    pitch_hz = np.linspace(from_hz, to_hz, count)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
    wave = np.zeros(count)
    for n in range(1, 24):
        hz = n * pitch_hz
        near_first = np.exp(-(((hz - first_hz) / 160) ** 2))
        near_second = np.exp(-(((hz - second_hz) / 250) ** 2))
        # Phases that differ keep the peaks from piling up.
        wave += np.sin(n * phase + n * n) * (0.08 / n + near_first + 0.5 * near_second)
    rise = np.minimum(1, np.arange(count) / (0.03 * RATE_HZ))
    wave *= rise * rise[::-1]
    spoken: Samples = np.rint(wave / np.abs(wave).max() * 11_000).astype(np.int16)
    return spoken
