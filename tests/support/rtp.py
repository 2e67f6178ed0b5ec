"""RTP for the tests: a paced sender, and a receiver that keeps every packet and its arrival."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.support.tones import FULL_SCALE, Pcm, bursts, silence
from tests.support.waiting import within

FRAME_MS = 20
EVENT_PAYLOAD = 101
DIGITS = "0123456789*#ABCD"

# The socket module does not name them: SO_TIMESTAMPNS and SCM_TIMESTAMPNS of Linux.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@qq")
_HEADER = struct.Struct("!BBHII")


@dataclass(frozen=True)
class Codec:
    """A codec by its name in SDP, and how to speak it."""

    name: str
    rate_hz: int
    payload_type: int
    encode: Callable[[Pcm], bytes]
    decode: Callable[[bytes], Pcm]
    channels: int = 1
    event_rate_hz: int = 8000  # the clock of telephone events beside it

    @property
    def frame_samples(self) -> int:
        return self.rate_hz * FRAME_MS // 1000

    @property
    def rtpmap(self) -> str:
        shown = f"{self.payload_type} {self.name}/{self.rate_hz}"
        return f"{shown}/{self.channels}" if self.channels > 1 else shown


def _ulaw_table() -> Pcm:
    code = ~np.arange(256) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4)
    return np.where(code & 0x80, 0x84 - magnitude, magnitude - 0x84).astype(np.int16)


def _alaw_table() -> Pcm:
    code = np.arange(256) ^ 0x55
    segment = (code & 0x70) >> 4
    magnitude = ((code & 0x0F) << 4) + 8
    magnitude = np.where(segment > 0, (magnitude + 0x100) << np.maximum(segment - 1, 0), magnitude)
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _encoder(table: Pcm) -> Callable[[Pcm], bytes]:
    """An encoder that takes the nearest value of a decoding table."""
    by_value = np.argsort(table, kind="stable")
    sorted_values = table[by_value].astype(np.int32)
    edges = (sorted_values[1:] + sorted_values[:-1]) / 2
    codes = by_value[np.searchsorted(edges, np.arange(-32768, 32768))].astype(np.uint8)

    def encode(pcm: Pcm) -> bytes:
        return codes[pcm.astype(np.int32) + 32768].tobytes()

    return encode


def _decoder(table: Pcm) -> Callable[[bytes], Pcm]:
    def decode(data: bytes) -> Pcm:
        return table[np.frombuffer(data, np.uint8)]

    return decode


def _l16(rate_hz: int, payload_type: int) -> Codec:
    return Codec(
        "L16",
        rate_hz,
        payload_type,
        lambda pcm: pcm.astype(">i2").tobytes(),
        lambda data: np.frombuffer(data, ">i2").astype(np.int16),
    )


PCMU = Codec("PCMU", 8000, 0, _encoder(_ulaw_table()), _decoder(_ulaw_table()))
PCMA = Codec("PCMA", 8000, 8, _encoder(_alaw_table()), _decoder(_alaw_table()))
L16_8K = _l16(8000, 96)
L16_16K = _l16(16000, 97)
CODECS = (PCMU, PCMA, L16_8K, L16_16K)
# Says and hears nothing but silence: for what there is beside audio.
SILENT_OPUS = Codec(
    "opus",
    48000,
    111,
    lambda _: b"\xf8\xff\xfe",
    lambda _: silence(FRAME_MS, 48000),
    channels=2,
    event_rate_hz=48000,
)


@dataclass(frozen=True)
class Packet:
    """One packet of audio; `time_ns` is CLOCK_MONOTONIC when it was sent, or reached the kernel."""

    time_ns: int
    sequence: int
    timestamp: int
    ssrc: int
    marker: bool
    pcm: Pcm

    @property
    def loud(self) -> bool:
        """Whether there is a sound above -40 dBFS in it."""
        return bool(self.pcm.size and np.abs(self.pcm.astype(np.int32)).max() > FULL_SCALE / 100)


@dataclass(frozen=True)
class Onset:
    """The first packet of a sound."""

    time_ns: int
    pcm: Pcm


class Track:
    """The packets of one direction."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self.packets: list[Packet] = []

    def pcm(self, since_ns: int = 0) -> Pcm:
        """All audio, packet after packet, whatever the time between them."""
        parts = [packet.pcm for packet in self.packets if packet.time_ns >= since_ns]
        return np.concatenate(parts) if parts else silence(0, self.rate_hz)

    def timeline(self, since_ns: int = 0) -> Pcm:
        """The audio on one clock: each packet at its RTP timestamp, silence where there was none.

        Where the timestamps jump (a new source, a restart of the clock) the arrival times decide.
        """
        packets = [packet for packet in self.packets if packet.time_ns >= since_ns]
        if not packets:
            return silence(0, self.rate_hz)
        places: list[int] = []
        offset = 0
        previous = packets[0]
        for packet in packets:
            step = (packet.timestamp - previous.timestamp + (1 << 31)) % (1 << 32) - (1 << 31)
            elapsed = (packet.time_ns - previous.time_ns) * self.rate_hz // 1_000_000_000
            jumped = packet.ssrc != previous.ssrc or abs(step - elapsed) > self.rate_hz // 2
            offset = max(0, offset + (elapsed if jumped else step))
            places.append(offset)
            previous = packet
        line = np.zeros(max(p + k.pcm.size for p, k in zip(places, packets, strict=True)), np.int16)
        for place, packet in zip(places, packets, strict=True):
            line[place : place + packet.pcm.size] = packet.pcm
        return line

    def onsets(self, since_ns: int = 0, quiet_packets: int = 1) -> list[Onset]:
        """Where sounds begin: loud packets after `quiet_packets` silent ones, or after a pause."""
        found = []
        quiet = quiet_packets
        previous_ns: int | None = None
        for packet in self.packets:
            if packet.time_ns < since_ns:
                continue
            pause_ns = packet.time_ns - (previous_ns or packet.time_ns)
            if packet.loud:
                if quiet >= quiet_packets or pause_ns > 200_000_000:
                    found.append(Onset(packet.time_ns, packet.pcm))
                quiet = 0
            else:
                quiet += 1
            previous_ns = packet.time_ns
        return found

    def last_loud_ns(self) -> int:
        """When the last packet with a sound in it came; 0 if none did."""
        return max((packet.time_ns for packet in self.packets if packet.loud), default=0)


class RtpSession:
    """One RTP stream in each direction on a loopback port.

    Audio is queued with :meth:`say`; when nothing is queued silence is sent, or nothing at all
    while :attr:`muted` (as phones with silence suppression do).
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.muted = False
        self.sent = Track(codec.rate_hz)
        self.received = Track(codec.rate_hz)
        self.received_digits: list[str] = []
        self.corrupt_packets = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.setblocking(False)
        self._socket.bind(("127.0.0.1", 0))
        self._queue = silence(0, codec.rate_hz)
        self._spoken = asyncio.Event()
        self._digits: list[tuple[str, int, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._ssrc = random.getrandbits(32)
        self._sequence = random.getrandbits(16)
        self._timestamp = random.getrandbits(32)
        self._realtime_offset_ns = time.time_ns() - time.monotonic_ns()
        self._last_digit_timestamp: int | None = None
        asyncio.get_running_loop().add_reader(self._socket, self._receive)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def start(self, host: str, port: int) -> None:
        """Begins to send to the far end, or redirects what is sent."""
        self._remote = (host, port)
        if self._task is None:
            self._task = asyncio.create_task(self._send_paced())

    def use(self, codec: Codec) -> None:
        """Changes the codec, as a re-INVITE does; with another rate the tracks begin anew."""
        if codec.rate_hz != self.codec.rate_hz:
            self.sent, self.received = Track(codec.rate_hz), Track(codec.rate_hz)
            self._queue = silence(0, codec.rate_hz)
        self.codec = codec

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def say(self, pcm: Pcm) -> None:
        """Queues audio; it begins with the next packet."""
        self._spoken.clear()
        self._queue = np.concatenate((self._queue, pcm))

    async def said(self) -> None:
        """Waits until all queued audio was sent."""
        if self._queue.size:
            await self._spoken.wait()

    async def digit(self, digit: str, duration_ms: int = 100) -> None:
        """Presses a key (RFC 4733) and waits until it is released."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._digits.append((digit, duration_ms, done))
        await done

    async def hear(self, condition: Callable[[Track], bool], timeout_s: float = 10.0) -> None:
        """Waits until what was received fulfils a condition; it is asked after each packet."""
        async with within(timeout_s, self._describe):
            while not condition(self.received):
                self._news.clear()
                await self._news.wait()

    def _describe(self) -> str:
        found = bursts(self.received.timeline(), self.received.rate_hz)
        shown = ", ".join(f"{burst.freq_hz:.0f} Hz" for burst in found[-10:])
        return (
            f"the phone got {len(self.received.packets)} packets; heard last: {shown or 'silence'}"
        )

    async def hear_for(self, seconds: float) -> None:
        """Listens until packets have come for that long (by their arrival times)."""
        start_ns = time.monotonic_ns()
        end_ns = start_ns + int(seconds * 1e9)
        await self.hear(
            lambda track: bool(track.packets) and track.packets[-1].time_ns >= end_ns,
            seconds + 10,
        )

    async def _send_paced(self) -> None:
        loop = asyncio.get_running_loop()
        start_s, ticks = loop.time(), 0
        while True:
            ticks += 1
            if self._digits:
                ticks += await self._send_digit(start_s + ticks * FRAME_MS / 1000)
                continue
            self._send_audio()
            await asyncio.sleep(start_s + ticks * FRAME_MS / 1000 - loop.time())

    def _send_audio(self) -> None:
        count = self.codec.frame_samples
        if self._queue.size or not self.muted:
            part, self._queue = self._queue[:count], self._queue[count:]
            pcm = np.concatenate((part, np.zeros(count - part.size, np.int16)))
            packet = Packet(
                time.monotonic_ns(), self._sequence, self._timestamp, self._ssrc, False, pcm
            )
            self._send(self.codec.payload_type, self.codec.encode(pcm))
            self.sent.packets.append(packet)
        if not self._queue.size:
            self._spoken.set()
        self._timestamp = (self._timestamp + count) % (1 << 32)

    async def _send_digit(self, due_s: float) -> int:
        """Sends one key press in place of audio; returns how many further ticks it took."""
        loop = asyncio.get_running_loop()
        digit, duration_ms, done = self._digits.pop(0)
        steps = max(1, duration_ms // FRAME_MS)
        for step in range(1, steps + 3):
            last = step >= steps
            units = min(step, steps) * FRAME_MS * self.codec.event_rate_hz // 1000
            event = struct.pack("!BBH", DIGITS.index(digit), 0x8A if last else 0x0A, units)
            self._send(EVENT_PAYLOAD, event, marker=step == 1)
            await asyncio.sleep(due_s + (step - 1) * FRAME_MS / 1000 - loop.time())
        self._timestamp = (self._timestamp + (steps + 2) * self.codec.frame_samples) % (1 << 32)
        if not done.done():
            done.set_result(None)
        return steps + 1

    def _send(self, payload_type: int, payload: bytes, marker: bool = False) -> None:
        kind = payload_type | (0x80 if marker else 0)
        header = _HEADER.pack(0x80, kind, self._sequence, self._timestamp, self._ssrc)
        self._sequence = (self._sequence + 1) % (1 << 16)
        with contextlib.suppress(ConnectionRefusedError, BlockingIOError):
            self._socket.sendto(header + payload, self._remote)

    def _receive(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(4096, 64)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                continue  # the far end closed its port: told here, of no interest
            seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2][: _TIMESPEC.size])
            arrival_ns = seconds * 1_000_000_000 + nanoseconds - self._realtime_offset_ns
            self._take(data, arrival_ns)
            self._news.set()

    def _take(self, data: bytes, arrival_ns: int) -> None:
        if len(data) < _HEADER.size or data[0] >> 6 != 2:
            self.corrupt_packets += 1
            return
        _, kind, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
        payload = data[_HEADER.size + 4 * (data[0] & 0x0F) :]
        if kind & 0x7F == EVENT_PAYLOAD:
            self._take_event(payload, timestamp)
        elif kind & 0x7F == self.codec.payload_type:
            pcm = self.codec.decode(payload)
            self.received.packets.append(
                Packet(arrival_ns, sequence, timestamp, ssrc, bool(kind & 0x80), pcm)
            )

    def _take_event(self, payload: bytes, timestamp: int) -> None:
        event, flags = payload[0], payload[1]
        if flags & 0x80 and timestamp != self._last_digit_timestamp:
            self._last_digit_timestamp = timestamp
            self.received_digits.append(DIGITS[event])
