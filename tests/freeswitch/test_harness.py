"""The instruments themselves, tried on FreeSWITCH's own applications."""

from __future__ import annotations

import pytest

from tests.freeswitch.scene import assert_echo
from tests.support import tones
from tests.support.freeswitch import PrivateSwitch
from tests.support.rtp import CODECS, L16_16K, PCMA, Codec
from tests.support.sip import CallFailed, SipAgent
from tests.support.waiting import eventually

pytestmark = pytest.mark.freeswitch

STEPS = tones.spread_hz(8)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: f"{codec.name}-{codec.rate_hz}")
async def test_echo_gives_back_what_was_said(
    switch: PrivateSwitch, agent: SipAgent, codec: Codec
) -> None:
    """Order, pitch, level and length of all bursts survive both directions."""
    call = await agent.call(switch.sip_port, "echo", codec=codec)
    await assert_echo(call)
    heard_before = len(call.rtp.received.packets)
    call.rtp.say(tones.staircase(STEPS, 80, 40, codec.rate_hz))
    await call.rtp.said()
    await call.rtp.hear_for(0.3)
    since_ns = call.rtp.received.packets[heard_before].time_ns
    found = tones.bursts(call.rtp.received.timeline(since_ns), codec.rate_hz)
    assert tones.order(found, STEPS) == STEPS
    for burst in found:
        assert burst.level_dbfs == pytest.approx(-12, abs=0.5)
        assert burst.length == pytest.approx(tones.samples(80, codec.rate_hz), rel=0.03)


async def test_a_tone_of_the_switch_has_the_right_pitch(
    switch: PrivateSwitch, agent: SipAgent
) -> None:
    """L16 has the byte order that the switch means, and the clock runs at the right speed."""
    call = await agent.call(switch.sip_port, "tone", codec=L16_16K)
    await call.rtp.hear(lambda track: track.pcm().size >= 16000)
    assert tones.dominant_hz(call.rtp.received.timeline(), 16000) == pytest.approx(1000, abs=1)


async def test_keys_arrive(switch: PrivateSwitch, agent: SipAgent) -> None:
    """RFC 4733 digits are understood."""
    call = await agent.call(switch.sip_port, "t-read")
    for digit in "4*7":
        await call.rtp.digit(digit)

    async def keys() -> bool:
        return await switch.variable(call.uuid, "keys") == "4*7"

    await eventually(keys, what="the keys 4*7")


async def test_hold_and_codec_change(switch: PrivateSwitch, agent: SipAgent) -> None:
    """Re-INVITEs hold a call and change its codec."""
    call = await agent.call(switch.sip_port, "echo")
    await assert_echo(call)
    assert "a=recvonly" in (await call.reinvite("sendonly")).body
    for codec in (PCMA, L16_16K):
        await call.reinvite("sendrecv", codec)
        await assert_echo(call)
        assert await switch.variable(call.uuid, "write_codec") == codec.name


async def test_the_switch_calls_and_hangs_up(switch: PrivateSwitch, agent: SipAgent) -> None:
    """Incoming calls are answered; the end of a call is seen."""
    reply = await switch.api(f"originate sofia/internal/sip:bob@127.0.0.1:{agent.port} &echo()")
    assert reply.startswith("+OK")
    call = await agent.incoming.get()
    await assert_echo(call)
    await switch.api(f"uuid_kill {reply.split()[1]}")
    await call.wait_ended()


async def test_a_phone_that_sends_nothing(switch: PrivateSwitch, agent: SipAgent) -> None:
    """A muted phone sends no RTP at all, and its time goes on."""
    call = await agent.call(switch.sip_port, "echo")
    await assert_echo(call)
    call.rtp.muted = True
    sent = len(call.rtp.sent.packets)
    # FreeSWITCH's clock goes on: the key pressed meanwhile is the only packet that it gets.
    await call.rtp.digit("1", duration_ms=400)
    assert len(call.rtp.sent.packets) <= sent + 1
    call.rtp.muted = False
    await assert_echo(call)


async def test_an_unknown_extension_is_refused(switch: PrivateSwitch, agent: SipAgent) -> None:
    """A call that fails says so."""
    with pytest.raises(CallFailed, match="404"):
        await agent.call(switch.sip_port, "no-such-extension")


async def test_helpers_see_the_process(switch: PrivateSwitch) -> None:
    """Threads, descriptors and memory of the switch can be read."""
    assert switch.child.threads() > 5
    assert any(target.startswith("socket:") for target in switch.child.fds())
    assert switch.child.rss_kb() > 10_000
