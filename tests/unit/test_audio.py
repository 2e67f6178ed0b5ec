"""Clips: what every encoding decodes to, and what is refused."""

from __future__ import annotations

import base64
import io
import struct

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from pylisten.audio import MAX_CLIP_S, Clip, decode_clip
from pylisten.verb import RATES_HZ
from pylisten.wire import ContentType, PlayAudio, WireError

Floats = npt.NDArray[np.float64]

# A tone at half of full scale, 100 ms long.
TONE: Floats = 0.5 * np.sin(2 * np.pi * 440 * np.arange(1600) / 16000)


def wav(
    samples: npt.ArrayLike, rate_hz: int = 16000, encoding: str = "PCM_16", container: str = "WAV"
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, subtype=encoding, format=container)
    return file.getvalue()


def decode(data: bytes, kind: ContentType = "wav", rate_hz: int | None = None) -> Clip:
    return decode_clip(PlayAudio(base64.b64encode(data).decode(), kind, rate_hz, "c1"))


def refusal(data: bytes, kind: ContentType = "wav", rate_hz: int | None = None) -> WireError:
    with pytest.raises(WireError) as caught:
        decode(data, kind, rate_hz)
    assert caught.value.id == "c1"
    return caught.value


def with_sizes(data: bytes, *, riff: int, audio: int) -> bytes:
    """The WAV with other sizes in its RIFF and data headers."""
    at = data.index(b"data") + 4
    sized = data[:4] + struct.pack("<I", riff) + data[8:at] + struct.pack("<I", audio)
    return sized + data[at + 4 :]


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_raw_audio_is_taken_sample_by_sample(rate_hz: int) -> None:
    clip = decode(struct.pack("<4h", 0, 1, -32768, 32767), "raw", rate_hz)
    assert clip.rate_hz == rate_hz
    assert clip.samples.dtype == np.int16
    assert clip.samples.tolist() == [0, 1, -32768, 32767]


def test_the_duration_of_a_clip() -> None:
    assert decode(bytes(2 * 1240 * 8), "raw", 8000).duration_ms == 1240


@pytest.mark.parametrize(
    ("container", "encoding", "tolerance"),
    [
        ("WAV", "PCM_U8", 1 / 128),
        ("WAV", "PCM_16", 1 / 32768),
        ("WAV", "PCM_24", 1 / 32768),
        ("WAV", "PCM_32", 1 / 32768),
        ("WAV", "FLOAT", 1 / 32768),
        ("WAV", "DOUBLE", 1 / 32768),
        ("WAV", "ULAW", 0.02),
        ("WAV", "ALAW", 0.02),
        ("WAVEX", "PCM_16", 1 / 32768),
        ("WAVEX", "PCM_24", 1 / 32768),
        ("WAVEX", "FLOAT", 1 / 32768),
        ("WAVEX", "ULAW", 0.02),
        ("RF64", "PCM_16", 1 / 32768),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_encoding_sounds_the_same(
    container: str, encoding: str, tolerance: float, channels: int
) -> None:
    tone = np.stack([TONE] * channels, axis=1)
    clip = decode(wav(tone, encoding=encoding, container=container))
    assert clip.rate_hz == 16000
    assert clip.samples.shape == TONE.shape
    assert np.abs(clip.samples / 32768 - TONE).max() <= tolerance


def test_16_bit_wav_is_exact_up_to_full_scale() -> None:
    samples = np.arange(-32768, 32768, dtype=np.int16)
    assert np.array_equal(decode(wav(samples)).samples, samples)


def test_stereo_is_averaged() -> None:
    assert decode(wav(np.array([[100, 300], [-32768, -32768]], np.int16))).samples.tolist() == [
        200,
        -32768,
    ]


def test_floats_above_full_scale_are_clipped() -> None:
    wild = [3.0, -3.0, 1e300, float("inf"), float("-inf"), float("nan")]
    decoded = decode(wav(np.array(wild), encoding="DOUBLE")).samples.tolist()
    assert decoded == [32767, -32768, 32767, 32767, -32768, 0]


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_wav_header_tells_the_rate(rate_hz: int) -> None:
    assert decode(wav(TONE, rate_hz), "wave", 8000).rate_hz == rate_hz


def test_empty_audio_is_valid() -> None:
    assert decode(b"", "raw", 8000).samples.shape == (0,)
    assert decode(wav(np.zeros(0))).samples.shape == (0,)


def test_an_empty_wav_with_something_behind_its_data_is_empty() -> None:
    notes = b"LIST" + struct.pack("<I", 4) + b"abcd"
    data = wav(np.zeros(0)) + notes
    assert decode(with_sizes(data, riff=len(data) - 8, audio=0)).samples.shape == (0,)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
@pytest.mark.parametrize("riff", [0, 36, 0xFFFFFFFF])
def test_a_wav_written_to_a_pipe_reaches_to_its_end(size: int, riff: int) -> None:
    whole = wav(TONE)
    clip = decode(with_sizes(whole, riff=riff, audio=size))
    assert np.array_equal(clip.samples, decode(whole).samples)


def test_other_chunks_are_passed_over() -> None:
    data = wav(TONE)
    at = data.index(b"fmt ")
    odd = b"junk" + struct.pack("<I", 3) + b"abc\0"
    notes = b"LIST" + struct.pack("<I", 4) + b"abcd"
    clip = decode(data[:at] + odd + data[at:] + notes)
    assert np.array_equal(clip.samples, decode(data).samples)


def test_a_truncated_wav_is_refused_with_both_sizes() -> None:
    error = refusal(wav(TONE)[:1000])
    assert error.code == "bad-audio"
    assert error.message == (
        "data.audioContent: truncated WAV: its header claims 3200 bytes of audio, 956 were found"
    )


@pytest.mark.parametrize("length", [12, 30, 36, 40])
def test_a_wav_that_ends_before_its_audio_is_refused(length: int) -> None:
    assert "it has no data chunk" in refusal(wav(TONE)[:length]).message


@pytest.mark.parametrize(
    ("container", "encoding"),
    [
        *(("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16")),
        *(("AU", "PCM_16"), ("W64", "PCM_16"), ("CAF", "PCM_16")),
    ],
)
def test_other_containers_are_refused(container: str, encoding: str) -> None:
    error = refusal(wav(TONE, encoding=encoding, container=container))
    assert error.code == "bad-audio"
    assert "not a WAV file" in error.message


@pytest.mark.parametrize("encoding", ["IMA_ADPCM", "MS_ADPCM", "GSM610"])
def test_other_encodings_are_refused(encoding: str) -> None:
    error = refusal(wav(TONE, 8000, encoding))
    assert error.code == "bad-audio"
    assert f"found a WAV of {encoding}, expected PCM or G.711" in error.message


def test_more_than_two_channels_are_refused() -> None:
    error = refusal(wav(np.zeros((10, 3))))
    assert (error.code, "found 3 channels, expected 1 or 2" in error.message) == ("bad-audio", True)


@pytest.mark.parametrize("rate_hz", [4000, 11025, 22050, 44100, 96000])
def test_other_rates_are_refused(rate_hz: int) -> None:
    error = refusal(wav(TONE, rate_hz))
    assert error.code == "unsupported-rate"
    assert f"found {rate_hz} Hz, expected one of 8000, 16000" in error.message


def test_half_a_sample_is_refused() -> None:
    error = refusal(b"\1\2\3", "raw", 8000)
    assert error.code == "bad-audio"
    assert "found 3 bytes, expected 16-bit samples" in error.message


def test_a_wav_without_a_format_is_refused() -> None:
    body = b"WAVE" + b"data" + struct.pack("<I", 4) + bytes(4)
    error = refusal(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert error.code == "bad-audio"
    assert "not a readable WAV" in error.message


@pytest.mark.parametrize("data", [b"", b"hello", b"RIFF", b"RIFX" + bytes(4) + b"WAVE"])
def test_what_is_not_a_wav_is_refused(data: bytes) -> None:
    assert "it does not begin with RIFF or RF64 and WAVE" in refusal(data).message


@pytest.mark.parametrize(
    "content", ["AAA", "AAA=\n", " AAA=", "A===", "AAA=AAA=", "A-_=", "é", "="]
)
@pytest.mark.parametrize("kind", ["raw", "wav"])
def test_base64_is_strict(content: str, kind: ContentType) -> None:
    with pytest.raises(WireError) as caught:
        decode_clip(PlayAudio(content, kind, 8000, 5))
    assert (caught.value.code, caught.value.id) == ("bad-base64", 5)
    assert caught.value.message.startswith("data.audioContent: ")


@pytest.mark.parametrize("kind", ["raw", "wav"])
def test_a_clip_is_ten_minutes_at_most(kind: ContentType) -> None:
    samples = MAX_CLIP_S * 8000

    def clip(length: int) -> bytes:
        silence = np.zeros(length, np.int16)
        return silence.tobytes() if kind == "raw" else wav(silence, 8000, "ULAW")

    assert len(decode(clip(samples), kind, 8000).samples) == samples
    assert refusal(clip(samples + 8000), kind, 8000).code == "too-large"


def harmless(play: PlayAudio) -> bool:
    """Whether the clip is decoded, or refused by the one error that may be raised."""
    try:
        clip = decode_clip(play)
    except WireError as error:
        return bool(str(error).encode())
    return clip.samples.ndim == 1 and clip.rate_hz in RATES_HZ


def message(data: bytes, kind: ContentType) -> PlayAudio:
    return PlayAudio(base64.b64encode(data).decode(), kind, 8000, "c1")


@given(st.binary(), st.sampled_from(["raw", "wav", "wave"]))
def test_no_bytes_raise_anything_but_wire_error(data: bytes, kind: ContentType) -> None:
    assert harmless(message(data, kind))


@given(
    st.sampled_from(["PCM_16", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM", "GSM610"]),
    st.sampled_from(["WAV", "WAVEX", "RF64"]),
    st.lists(st.tuples(st.integers(0, 120), st.binary(min_size=1, max_size=8)), max_size=4),
    st.integers(0, 400),
)
def test_no_damaged_wav_raises_anything_but_wire_error(
    encoding: str, container: str, damages: list[tuple[int, bytes]], length: int
) -> None:
    if encoding in ("IMA_ADPCM", "GSM610"):
        container = "WAV"
    data = bytearray(wav(TONE[:64], 8000, encoding, container))
    for at, damage in damages:
        data[at : at + len(damage)] = damage
    assert harmless(message(bytes(data[:length]), "wav"))
    assert harmless(message(bytes(data), "wav"))


@given(st.text(st.characters(codec=None)))
def test_no_text_raises_anything_but_wire_error(content: str) -> None:
    assert harmless(PlayAudio(content, "raw", 8000))
