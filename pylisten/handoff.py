"""The handoff socket, a worker's side: asks a switch for its shared memory.

The messages are described in docs/reference/contract.md. After the welcome nothing is sent; the
end of the connection is the death of the switch.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
from pathlib import Path

from pylisten.errors import PylistenError, ShmError
from pylisten.shm import ABI_MAJOR, ABI_MINOR, MAGIC, Arena, layout

__all__ = ["HELLO", "WELCOME", "Handoff", "HandoffError", "HandoffRefused", "hello"]

HELLO = struct.Struct("<IHHQ32s")
"""magic, ABI major and minor, layout, name of the worker."""

WELCOME = struct.Struct("<IHHII128s")
"""magic, ABI major and minor, status, index of the worker, text."""

_DESCRIPTORS = 3
_TIMEOUT_S = 5.0


class HandoffError(PylistenError):
    """The switch could not be reached on its handoff socket; trying again may help."""


class HandoffRefused(HandoffError):
    """The switch answered, and said no. `status` is the number of the contract."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


def hello(name: str) -> bytes:
    """The HELLO of a worker. Raises ValueError for a name that the contract does not allow."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,31}", name):
        raise ValueError(f"worker name {name!r}: 1 to 31 of A-Z a-z 0-9 . _ - are allowed")
    return HELLO.pack(MAGIC, ABI_MAJOR, ABI_MINOR, layout(), name.encode("ascii"))


class Handoff:
    """A worker's attachment to one switch: its arena, both bells, and whether it still lives."""

    def __init__(
        self, sock: socket.socket, worker: int, arena: Arena, doorbell_fd: int, kick_fd: int
    ) -> None:
        self._sock = sock
        self._kick_fd = kick_fd
        self.worker = worker
        """This worker's index in the arena."""
        self.arena = arena
        self.doorbell_fd = doorbell_fd

    @classmethod
    async def connect(cls, path: Path, name: str) -> Handoff:
        """Attaches to the switch at `path`.

        Raises HandoffError if nobody answers there, HandoffRefused if the switch says no,
        ShmError if its memory cannot be mapped.
        """
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        fds: list[int] = []
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await loop.sock_connect(sock, str(path))
                await loop.sock_sendall(sock, hello(name))
                await _readable(loop, sock)
            data, fds, _flags, _address = socket.recv_fds(sock, WELCOME.size, _DESCRIPTORS)
            worker = _welcomed(data, fds)
            arena = Arena.map(fds[0])
        except BaseException as exc:
            for fd in fds:
                os.close(fd)
            sock.close()
            if isinstance(exc, OSError | TimeoutError) and not isinstance(exc, ShmError):
                raise HandoffError(f"{path}: {_explain(exc)}") from exc
            raise
        os.close(fds[0])
        return cls(sock, worker, arena, fds[1], fds[2])

    def kick(self) -> None:
        """Wakes the switch: there is something to play where there was nothing."""
        os.eventfd_write(self._kick_fd, 1)

    async def lost(self) -> None:
        """Returns when the switch has gone."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                if not await loop.sock_recv(self._sock, 1):
                    return
            except OSError:
                return

    def close(self) -> None:
        """Detaches. The switch sees it as the death of this worker."""
        self._sock.close()
        os.close(self.doorbell_fd)
        os.close(self._kick_fd)
        self.arena.close()


async def _readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)


def _welcomed(data: bytes, fds: list[int]) -> int:
    if len(data) != WELCOME.size:
        raise HandoffError("the switch closed the handoff socket without an answer")
    magic, major, minor, status, worker, text = WELCOME.unpack(data)
    if magic != MAGIC:
        raise HandoffError("what listens there is no mod_listen")
    if status:
        raise HandoffRefused(status, text.split(b"\0", 1)[0].decode("utf-8", "replace"))
    if major != ABI_MAJOR or len(fds) != _DESCRIPTORS:
        raise HandoffError(
            f"the switch speaks ABI {major}.{minor}, this worker {ABI_MAJOR}.{ABI_MINOR}: "
            "install mod_listen and pylisten from the same release"
        )
    return int(worker)


def _explain(exc: OSError | TimeoutError) -> str:
    if isinstance(exc, FileNotFoundError):
        return "no such socket: is mod_listen loaded, and is this its handoff-socket?"
    if isinstance(exc, PermissionError):
        return "permission denied: run as the switch's user, or put this user into handoff-group"
    if isinstance(exc, ConnectionRefusedError):
        return "nobody listens there: has the switch stopped?"
    if isinstance(exc, TimeoutError):
        return f"no answer within {_TIMEOUT_S:g} s"
    return exc.strerror or str(exc)
