"""The handoff socket of the simulator: who is let in, who is not, and what each is told."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from pylisten import shm
from pylisten.handoff import HELLO, WELCOME, Handoff, HandoffRefused
from pylisten.simulator import SimulatedSwitch
from pylisten.simulator.handoff import Status
from tests.unit.simulator_hand import until


async def greet(path: Path, message: bytes) -> tuple[int, str, list[int]]:
    """Says ``message`` and returns status, text and descriptors of the answer."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, str(path))
        await loop.sock_sendall(sock, message)
        answer, fds, _, _ = await asyncio.to_thread(_receive, sock)
        magic, major, minor, status, _, text = WELCOME.unpack(answer)
        assert (magic, major, minor) == (shm.MAGIC, shm.ABI_MAJOR, shm.ABI_MINOR)
        if status:
            assert await loop.sock_recv(sock, 1) == b"", "a refusal ends the connection"
        return status, text.rstrip(b"\0").decode(), list(fds)


def _receive(sock: socket.socket) -> tuple[bytes, list[int], int, object]:
    sock.setblocking(True)
    try:
        return socket.recv_fds(sock, WELCOME.size, 3)
    finally:
        sock.setblocking(False)


def hello(
    *,
    magic: int = shm.MAGIC,
    major: int = shm.ABI_MAJOR,
    layout: int | None = None,
    name: bytes = b"w1",
) -> bytes:
    return HELLO.pack(magic, major, 0, shm.layout() if layout is None else layout, name)


async def test_a_worker_gets_arena_doorbell_and_kick() -> None:
    async with SimulatedSwitch() as switch:
        status, text, fds = await greet(switch.handoff_socket, hello())
        assert (status, text) == (Status.OK, "welcome")
        kinds = [os.readlink(f"/proc/self/fd/{fd}") for fd in fds]
        for fd in fds:
            os.close(fd)
    assert "memfd:" in kinds[0]
    assert "eventfd" in kinds[1]
    assert "eventfd" in kinds[2]


@pytest.mark.parametrize(
    ("message", "status", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", Status.BAD_HELLO, "not a HELLO"),
        (hello() + b"!", Status.BAD_HELLO, "not a HELLO"),
        (hello(magic=1), Status.BAD_HELLO, "not a HELLO"),
        (hello(name=b""), Status.BAD_HELLO, "the worker's name is not"),
        (hello(name=b"a b"), Status.BAD_HELLO, "the worker's name is not"),
        (hello(name=b"x" * 32), Status.BAD_HELLO, "the worker's name is not"),
        (hello(major=2), Status.ABI_MISMATCH, "this worker 2.0: install both"),
        (hello(layout=1), Status.ABI_MISMATCH, "install both from the same release"),
    ],
)
async def test_a_strange_hello_is_refused(message: bytes, status: Status, words: str) -> None:
    async with SimulatedSwitch() as switch:
        answer, text, fds = await greet(switch.handoff_socket, message)
        assert switch.workers == []
    assert answer == status
    assert words in text
    assert not fds


async def test_a_user_who_is_not_on_the_list_is_refused() -> None:
    async with SimulatedSwitch(allowed_uids=frozenset({os.geteuid() + 1})) as switch:
        with pytest.raises(HandoffRefused, match=f"uid {os.geteuid()} may not") as refused:
            await Handoff.connect(switch.handoff_socket, "w1")
    assert refused.value.status == Status.NOT_ALLOWED


async def test_two_workers_of_one_name_do_not_go_together() -> None:
    async with SimulatedSwitch() as switch:
        first = await Handoff.connect(switch.handoff_socket, "w1")
        with pytest.raises(HandoffRefused, match="w1 is attached already") as refused:
            await Handoff.connect(switch.handoff_socket, "w1")
        first.close()
    assert refused.value.status == Status.NAME_IN_USE


async def test_there_is_an_end_to_the_number_of_workers() -> None:
    async with SimulatedSwitch(max_workers=2) as switch:
        attached = [await Handoff.connect(switch.handoff_socket, f"w{n}") for n in range(2)]
        with pytest.raises(HandoffRefused, match="2 workers are attached") as refused:
            await Handoff.connect(switch.handoff_socket, "w2")
        assert [each.worker for each in attached] == [0, 1]
        for each in attached:
            each.close()
    assert refused.value.status == Status.TOO_MANY_WORKERS


async def test_the_end_of_the_socket_is_the_end_of_the_worker() -> None:
    async with SimulatedSwitch() as switch:
        worker = await Handoff.connect(switch.handoff_socket, "w1")
        assert [each.name for each in switch.workers] == ["w1"]
        assert switch.workers[0].pid == os.getpid()
        worker.close()
        await until(lambda: not switch.workers)
        again = await Handoff.connect(switch.handoff_socket, "w1")
        again.close()


async def test_a_worker_sees_the_end_of_the_switch() -> None:
    async with SimulatedSwitch() as switch:
        path = switch.handoff_socket
        worker = await Handoff.connect(path, "w1")
    async with asyncio.timeout(5):
        await worker.lost()
    worker.close()
    assert not path.exists()
    assert not path.parent.exists()


async def test_closing_gives_every_descriptor_back() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    async with SimulatedSwitch() as switch:
        worker = await Handoff.connect(switch.handoff_socket, "w1")
        worker.close()
    assert sorted(os.listdir("/proc/self/fd")) == before
