"""``pylisten simulate``: one call from an audio file to a server, without a switch.

Plays the file to the server as the caller, in real time, through a real worker and the same shared
memory as on a switch; shows what happened, keeps what both said, and judges whether all went well.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import numpy as np
import soundfile

from pylisten.config import Config, EslConfig
from pylisten.errors import PylistenError
from pylisten.simulator.call import SimulatedCall
from pylisten.simulator.clock import TICKS_PER_S
from pylisten.simulator.listen import Listen
from pylisten.simulator.picture import draw_call
from pylisten.simulator.recording import Samples
from pylisten.simulator.request import Refusal, Request, parse_request
from pylisten.simulator.switch import SimulatedSwitch
from pylisten.simulator.timeline import Moment, Timeline
from pylisten.worker import Worker

__all__ = ["AudioFileError", "read_audio", "run_call", "simulate"]

READY_TIMEOUT_S: Final = 15.0
FRAME_S: Final = 1 / TICKS_PER_S

_AFTERWARDS_S: Final = 0.3  # so that the end of what the bot said last is heard

# Counters that are zero when nothing was lost.
_LOSSES: Final = ("dropped_near", "dropped_far", "late_near", "late_far", "corrupt")


class AudioFileError(PylistenError):
    """The file cannot be played as a caller; the text says why."""


async def simulate(
    audio: Path,
    url: str,
    *,
    verb: dict[str, object] | None = None,
    out: Path | None = None,
    config: Config | None = None,
) -> int:
    """Simulates a call whose caller is the file ``audio``, and prints what happens.

    ``verb`` has further properties of the listen verb, ``out`` names a directory for ``call.wav``
    (caller left, bot right) and ``call.png``; ``config`` is the worker's, as far as it concerns
    servers. Returns 0 if the server was connected, all audio was sent, nothing was dropped and the
    end was clean, else 1, having said what was wrong.
    """
    try:
        source, rate_hz = await asyncio.to_thread(read_audio, audio)
    except AudioFileError as error:
        print(f"FAILED: {error}")
        return 1
    print(f"caller: {audio}, {len(source) / rate_hz:.2f} s at {rate_hz} Hz")
    return await run_call(source, rate_hz, url, verb=verb, out=out, config=config)


def read_audio(path: Path) -> tuple[Samples, int]:
    """Reads any file that libsndfile knows as int16 mono; returns it with its rate in Hz."""
    try:
        wide, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        if not path.exists():
            raise AudioFileError(f"{path}: no such file") from None
        raise AudioFileError(f"{path}: not audio that can be read here ({error})") from None
    if not len(wide):
        raise AudioFileError(f"{path}: there is no audio in it")
    mono = wide.mean(axis=1)
    return np.clip(np.rint(mono * 32767), -32768, 32767).astype(np.int16), int(rate_hz)


async def run_call(
    source: Samples,
    rate_hz: int,
    url: str,
    *,
    verb: Mapping[str, object] | None = None,
    out: Path | None = None,
    config: Config | None = None,
) -> int:
    """As ``simulate``, with the caller's audio in memory."""
    text = json.dumps({**(verb or {}), "url": url})
    call = SimulatedCall(source, rate_hz)
    async with SimulatedSwitch() as switch, _worker(switch, config or Config()):
        try:
            # Done beforehand, so that call and listen begin together.
            request = parse_request(text)
            await call.prepare(request.rate_hz)
            timeline, listen = await _run(switch, call, request)
        except Refusal as refusal:
            print(f"FAILED: the listen did not start: {refusal.text}")
            return 1
    faults = _faults(listen, timeline.end)
    if out is not None:
        try:
            await asyncio.to_thread(_write, out, call, listen, timeline.moments, url)
        except OSError as error:
            faults.append(f"nothing could be written to {out}: {error.strerror or error}")
    _summarise(call, listen, faults)
    return 1 if faults else 0


@asynccontextmanager
async def _worker(switch: SimulatedSwitch, config: Config) -> AsyncIterator[Worker]:
    """A worker in this process, attached to the switch."""
    worker = Worker(
        config.model_copy(
            update={
                "esl": EslConfig(port=switch.esl_port, password=switch.esl_password),
                "handoff_socket": switch.handoff_socket,
            }
        )
    )
    running = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await worker.ready()
        yield worker
    finally:
        worker.stop()
        await running


async def _run(
    switch: SimulatedSwitch, call: SimulatedCall, request: Request
) -> tuple[Timeline, Listen]:
    """Runs the call until its listen has ended and all that was left is sent."""
    timeline = Timeline(switch, call, _say)
    try:
        switch.add(call)
        listen = await switch.begin(call, request, on_open=timeline.follow)
        await timeline.ended.wait()
        if not call.ended.is_set():
            await asyncio.sleep(_AFTERWARDS_S)
        switch.hang_up(call)
        await listen.freed.wait()  # by the worker, or, if it hangs, by the switch after a while
    finally:
        timeline.close()
    timeline.moments.sort(key=lambda moment: moment.at_ms)
    return timeline, listen


def _say(moment: Moment) -> None:
    print(f"{moment.at_ms:>8} ms  {moment.text}", flush=True)


def _faults(listen: Listen, end: Mapping[str, str] | None) -> list[str]:
    """What did not go as it should have, in words; empty if all did."""
    faults: list[str] = []
    counters = listen.counters
    if end is None or end["Listen-Status"] != "ok" or "Listen-Error" in end:
        why = f"{listen.reason}: {listen.error}" if listen.error else listen.reason
        faults.append(f"the listen did not end well ({why})")
    if not listen.connected:
        faults.append("the server was never connected")
        return faults
    sent_s = counters["sent"] / listen.request.rate_hz
    wanted_s = (listen.end_ns - listen.start_ns) / 1e9
    if abs(sent_s - wanted_s) > FRAME_S + 1e-6:
        faults.append(f"{sent_s:.2f} s of audio were sent in a listen of {wanted_s:.2f} s")
    lost = {name: counters[name] for name in _LOSSES if counters[name]}
    if lost:
        faults.append(f"audio was lost: {', '.join(f'{n} {v}' for n, v in lost.items())} samples")
    return faults


def _summarise(call: SimulatedCall, listen: Listen, faults: list[str]) -> None:
    sent_s = listen.counters["sent"] / listen.request.rate_hz
    heard_s = sum(end - begin for begin, end in call.heard.passages)
    print(f"sent {sent_s:.2f} s of audio, the caller heard {heard_s:.2f} s of the bot")
    for fault in faults:
        print(f"FAILED: {fault}")
    if not faults:
        print("all went well: connected, every frame sent, nothing dropped, a clean end")


def _write(out: Path, call: SimulatedCall, listen: Listen, moments: list[Moment], url: str) -> None:
    """Writes call.wav and call.png into the directory ``out``, which is made if need be."""
    out.mkdir(parents=True, exist_ok=True)
    rate_hz = max(call.rate_hz, listen.request.rate_hz, call.heard.highest_rate_hz)
    caller, bot = call.said(rate_hz), call.what_was_heard(rate_hz)
    soundfile.write(out / "call.wav", np.column_stack((caller, bot)), rate_hz, subtype="PCM_16")
    # The query of a URL may hold a token.
    title = f"{url.partition('?')[0]}   {call.duration_s:.2f} s"
    draw_call(out / "call.png", caller, bot, rate_hz, moments, title)
    print(f"written: {out / 'call.wav'} (caller left, bot right), {out / 'call.png'}")
