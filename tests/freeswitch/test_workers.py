"""Workers come and go, switches too; calls go on."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.freeswitch.conftest import EXTENSIONS, StartWorker
from tests.freeswitch.scene import (
    assert_echo,
    assert_nothing_left,
    assert_reason,
    call_listen,
    connected,
    finished,
    listens,
    result,
    verb,
)
from tests.support import tones
from tests.support.freeswitch import Installation, PrivateSwitch
from tests.support.sip import SipAgent
from tests.support.waiting import eventually
from tests.support.wsserver import ListenServer

pytestmark = pytest.mark.freeswitch

ADOPT_TIMEOUT_MS = 4000
MAGIC = 0x314E534C
HELLO = struct.Struct("<IHHQ32s")
WELCOME = struct.Struct("<IHHII128s")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own_switch(
    freeswitch_installation: Installation, module_path: Path
) -> AsyncIterator[PrivateSwitch]:
    """A switch for this file: it does not wait long for a worker, and has few slots."""
    switch = PrivateSwitch(
        freeswitch_installation,
        module=module_path,
        extensions=(EXTENSIONS,),
        settings={"adopt-timeout-ms": str(ADOPT_TIMEOUT_MS), "max-listens": "4"},
    )
    try:
        await switch.start()
        yield switch
        await switch.stop()
    finally:
        await switch.remove()


@pytest_asyncio.fixture
async def phone(own_switch: PrivateSwitch, start_worker: StartWorker) -> AsyncIterator[SipAgent]:
    """A SIP phone; it hangs up while the workers live, and nothing may be left on the switch."""
    async with SipAgent() as agent:
        yield agent
    assert own_switch.child.alive, "FreeSWITCH died"
    await assert_nothing_left(own_switch, 45)


async def test_without_a_worker(own_switch: PrivateSwitch, phone: SipAgent) -> None:
    """A listen that nobody can serve ends at once, and the call goes on."""
    call = await call_listen(phone, own_switch, verb("ws://127.0.0.1:1/"))
    await assert_reason(own_switch, call, "no-worker", "failed")
    reply = await own_switch.api(f"uuid_listen {call.uuid} start ws://127.0.0.1:1/")
    assert reply.startswith("-ERR")


async def test_a_worker_dies(
    own_switch: PrivateSwitch, phone: SipAgent, server: ListenServer, start_worker: StartWorker
) -> None:
    """kill -9: the listen ends when nobody adopts it, the call goes on, a new worker serves."""
    worker = await start_worker(own_switch)
    call, stream = await connected(phone, own_switch, server)
    await stream.play(tones.tone(500, 10_000, 8000), 8000)
    await call.rtp.hear(lambda track: track.last_loud_ns() > 0)
    async with own_switch.events("CUSTOM listen::end") as events:
        await worker.kill9()
        await stream.wait_closed()
        event = await events.wait_event("listen::end", Unique_ID=call.uuid)
    assert event["Listen-Reason"] == "worker-lost"
    await assert_reason(own_switch, call, "worker-lost", "failed")
    await call.hangup()

    await start_worker(own_switch)
    call, stream = await connected(phone, own_switch, server)
    await stream.audio(0.3)
    await stream.disconnect()
    await assert_reason(own_switch, call, "disconnect", "ok")


async def test_a_worker_that_returns_in_time_goes_on(
    own_switch: PrivateSwitch, phone: SipAgent, server: ListenServer, start_worker: StartWorker
) -> None:
    """A restart of the only worker loses no listen; the first frame says that it was resumed."""
    worker = await start_worker(own_switch)
    call, stream = await connected(phone, own_switch, server)
    await worker.kill9()
    await worker.start()
    await stream.wait_closed()
    resumed = await server.stream(1)
    assert resumed.first["resumed"] is True
    assert resumed.first["callSid"] == call.uuid
    await resumed.disconnect()
    await assert_reason(own_switch, call, "disconnect", "ok")


async def test_another_worker_adopts(
    own_switch: PrivateSwitch, phone: SipAgent, server: ListenServer, start_worker: StartWorker
) -> None:
    """With two workers the loss of one is a short gap on the WebSocket, nothing more."""
    workers = {name: await start_worker(own_switch, name) for name in ("a", "b")}
    call, stream = await connected(phone, own_switch, server)
    await stream.audio(0.3)
    serving = (await listens(own_switch))[0]["worker"]
    await workers.pop(serving).kill9()
    (other,) = workers
    resumed = await server.stream(1)
    assert resumed.first["resumed"] is True
    assert (await listens(own_switch))[0]["worker"] == other
    call.rtp.say(tones.tone(900, 400, 8000))
    await resumed.until(lambda s: len(finished(s)) == 1)
    await resumed.play(tones.tone(1300, 400, 8000), 8000)
    await resumed.text("playDone")
    found = tones.bursts(call.rtp.received.timeline(), 8000, min_ms=200)
    assert tones.nearest(found[-1].freq_hz, [1300])
    await resumed.disconnect()
    await assert_reason(own_switch, call, "disconnect", "ok")


async def test_draining_moves_listens(
    own_switch: PrivateSwitch, phone: SipAgent, server: ListenServer, start_worker: StartWorker
) -> None:
    """`listen drain` hands a worker's listens to the others; new ones go elsewhere."""
    workers = {name: await start_worker(own_switch, name) for name in ("a", "b")}
    _, stream = await connected(phone, own_switch, server)
    serving = (await listens(own_switch))[0]["worker"]
    assert (await own_switch.api(f"listen drain {serving}")).startswith("+OK")
    resumed = await server.stream(1)
    await resumed.audio(0.3)
    await stream.wait_closed()
    await connected(phone, own_switch, server)
    assert {listen["worker"] for listen in await listens(own_switch)} == set(workers) - {serving}


async def test_sigterm_drains(
    own_switch: PrivateSwitch, phone: SipAgent, server: ListenServer, start_worker: StartWorker
) -> None:
    """A worker that is told to end hands over first, and ends with 0."""
    first = await start_worker(own_switch, "a")
    call, stream = await connected(phone, own_switch, server)
    await stream.audio(0.2)
    await start_worker(own_switch, "b")
    await first.stop()
    resumed = await server.stream(1)
    await resumed.audio(0.2)
    await resumed.disconnect()
    await assert_reason(own_switch, call, "disconnect")


async def test_the_table_of_listens_is_full(
    own_switch: PrivateSwitch, phone: SipAgent, server: ListenServer, start_worker: StartWorker
) -> None:
    """One more than max-listens is refused with a clear answer; the others and its call go on."""
    await start_worker(own_switch)
    calls = [await connected(phone, own_switch, server) for _ in range(4)]
    call = await call_listen(phone, own_switch, verb(server))
    found = await result(own_switch, call)
    assert found["status"] == "failed"
    await assert_echo(call)
    reply = await own_switch.api(f"uuid_listen {call.uuid} start {verb(server)}")
    assert reply.startswith("-ERR")
    assert "max-listens" in reply
    for _, stream in calls:
        await stream.audio(stream.seconds + 0.2)
    await calls[0][0].hangup()

    async def has_room() -> bool:
        answer = await own_switch.api(f"uuid_listen {call.uuid} start {verb(server)}")
        return answer.startswith("+OK")

    await eventually(has_room, 10, "a slot became free")


def greet(path: Path, hello: bytes) -> tuple[int, str, int]:
    """Sends a HELLO; returns status and text of the WELCOME, and how many descriptors came."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.settimeout(5)
        peer.connect(str(path))
        peer.send(hello)
        data, descriptors, _, _ = socket.recv_fds(peer, 4096, 8)
        for descriptor in descriptors:
            os.close(descriptor)
    _, _, _, status, _, text = WELCOME.unpack(data)
    return status, text.split(b"\0")[0].decode(), len(descriptors)


@pytest.mark.parametrize(
    ("hello", "status", "fragment"),
    [
        (HELLO.pack(MAGIC, 99, 0, 0, b"from-the-future"), 2, "99.0"),
        (HELLO.pack(MAGIC, 1, 0, 12345, b"another-layout"), 2, "ABI"),
        (HELLO.pack(0x1234, 1, 0, 0, b"no-magic"), 1, "HELLO"),
        (b"GET / HTTP/1.1\r\n\r\n", 1, "HELLO"),
        (HELLO.pack(MAGIC, 1, 0, 0, b"bad/name")[:20], 1, "HELLO"),
    ],
    ids=["abi-major", "layout", "magic", "not-a-hello", "short"],
)
async def test_a_stranger_at_the_handoff_socket(
    own_switch: PrivateSwitch,
    phone: SipAgent,
    server: ListenServer,
    start_worker: StartWorker,
    hello: bytes,
    status: int,
    fragment: str,
) -> None:
    """Who is no worker of this release is told so and gets nothing; others are served."""
    await start_worker(own_switch)
    found, text, descriptors = greet(own_switch.handoff_socket, hello)
    assert found == status
    assert fragment.lower() in text.lower()
    assert descriptors == 0
    _, stream = await connected(phone, own_switch, server)
    await stream.audio(0.2)


async def test_a_name_in_use_is_refused(
    own_switch: PrivateSwitch, phone: SipAgent, start_worker: StartWorker
) -> None:
    """A second worker of the same name does not push the first one out."""
    first = await start_worker(own_switch, "twin")
    second = await start_worker(own_switch, "twin", wait=False)
    await second.child.wait_line_with("twin is attached already", 15)
    assert first.alive
    await first.attached()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")
async def test_a_user_without_rights_gets_nothing(own_switch: PrivateSwitch) -> None:
    """The socket is not for everybody."""
    script = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "try:\n"
        "    peer.connect(sys.argv[1])\n"
        "except PermissionError:\n"
        "    print('refused')\n"
    )
    # The directories above are opened to all, so that the socket's own mode is what decides.
    for path in (own_switch.directory, own_switch.handoff_socket.parent):
        path.chmod(0o755)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        str(own_switch.handoff_socket),
        stdout=asyncio.subprocess.PIPE,
        cwd="/",
    )
    shown, _ = await process.communicate()
    assert shown.strip() == b"refused"


async def test_the_switch_restarts(
    own_switch: PrivateSwitch, phone: SipAgent, server: ListenServer, start_worker: StartWorker
) -> None:
    """`pylisten serve` outlives its switch and serves again when it is back, killed or stopped."""
    worker = await start_worker(own_switch)
    for brutal in (False, True):
        _, stream = await connected(phone, own_switch, server)
        lines = worker.child.line_count
        if brutal:
            await own_switch.kill9()
            await own_switch.start()
        else:
            await own_switch.restart()
        await stream.wait_closed()
        await worker.child.wait_line("pylisten ready", 30, start=lines)
        call, stream = await connected(phone, own_switch, server)
        await stream.audio(0.3)
        await stream.disconnect()
        await assert_reason(own_switch, call, "disconnect", "ok")
        await call.hangup()
