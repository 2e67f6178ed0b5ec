"""The switch's end of the handoff socket: hands over the shared memory, and knows who is alive.

A worker connects, says HELLO and is answered by a WELCOME that either carries three descriptors
(arena, doorbell, kick) or says why not. After that neither side writes: the end of the socket *is*
the death of the peer. The messages are described in ``docs/reference/contract.md``.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pylisten import shm
from pylisten.handoff import HELLO, WELCOME

__all__ = ["WORKERS_MAX", "HandoffServer", "Status", "Worker"]

WORKERS_MAX: Final = 64
NO_INDEX: Final = 0xFFFFFFFF
HELLO_TIMEOUT_S: Final = 2.0

_NAME: Final = re.compile(rb"[A-Za-z0-9._-]{1,31}")
_UCRED: Final = struct.Struct("3i")
_TEXT_BYTES: Final = 128


class Status(enum.IntEnum):
    """What a WELCOME says; everything but ``OK`` comes without descriptors."""

    OK = 0
    BAD_HELLO = 1
    ABI_MISMATCH = 2
    NOT_ALLOWED = 3
    NAME_IN_USE = 4
    TOO_MANY_WORKERS = 5


@dataclass(eq=False, slots=True)
class Worker:
    """A worker that is attached: ``doorbell_fd`` wakes it, ``index`` names it in shared memory."""

    name: str
    index: int
    pid: int
    doorbell_fd: int
    draining: bool = False
    connection: socket.socket | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def ring(self) -> None:
        """Wakes the worker; callable from any thread, and without effect once it is gone."""
        with self._lock:
            if self.doorbell_fd >= 0:
                os.eventfd_write(self.doorbell_fd, 1)

    def close(self) -> None:
        """Gives back its descriptors; the media clock may just be about to ring."""
        with self._lock:
            os.close(self.doorbell_fd)
            self.doorbell_fd = -1
        if self.connection is not None:
            self.connection.close()


class _Refused(Exception):
    """A HELLO that is answered by a status other than OK."""

    def __init__(self, status: Status, text: str) -> None:
        self.status = status
        self.text = text
        super().__init__(text)


class HandoffServer:
    """Listens on ``path`` and attaches workers to the arena behind ``arena_fd``.

    ``on_attach`` and ``on_lost`` are called in the event loop, with the worker, after it was
    welcomed and after its socket ended. ``allowed_uids`` are the user ids that may attach; root and
    the simulator's own user by default.
    """

    def __init__(
        self,
        path: Path,
        arena_fd: int,
        *,
        on_attach: Callable[[Worker], None],
        on_lost: Callable[[Worker], None],
        allowed_uids: frozenset[int] | None = None,
        workers_max: int = WORKERS_MAX,
    ) -> None:
        self.path = path
        self.workers: dict[int, Worker] = {}
        self._arena_fd = arena_fd
        self._on_attach = on_attach
        self._on_lost = on_lost
        self._allowed_uids = allowed_uids
        self._workers_max = workers_max
        self._kick_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Binds the socket; raises OSError if the path is taken or cannot be made."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.setblocking(False)
        try:
            listener.bind(str(self.path))
            listener.listen(16)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        self._spawn(self._accept(listener))

    async def close(self) -> None:
        """Ends every attachment and gives back all descriptors; no callback is called for these."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in list(self.workers.values()):
            self._forget(worker)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self.path.unlink(missing_ok=True)
        if self._kick_fd >= 0:
            os.close(self._kick_fd)
            self._kick_fd = -1

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            connection.setblocking(False)
            self._spawn(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                hello = await asyncio.get_running_loop().sock_recv(connection, HELLO.size + 1)
            worker = self._admit(hello, connection)
        except _Refused as refusal:
            self._answer(connection, refusal.status, NO_INDEX, refusal.text)
            connection.close()
            return
        except (OSError, TimeoutError):
            connection.close()
            return
        self._on_attach(worker)
        await self._watch(worker, connection)

    async def _watch(self, worker: Worker, connection: socket.socket) -> None:
        """Waits until the peer is gone; whatever it says after HELLO is not listened to."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while await loop.sock_recv(connection, 64):
                pass
        self._forget(worker)
        self._on_lost(worker)

    def _forget(self, worker: Worker) -> None:
        del self.workers[worker.index]
        worker.close()

    def _admit(self, hello: bytes, connection: socket.socket) -> Worker:
        pid, uid = self._peer(connection)
        name = self._check(hello, uid)
        index = next(i for i in range(self._workers_max) if i not in self.workers)
        doorbell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        visitor = name.startswith("doctor-")  # looks around, and is never given a listen
        worker = Worker(name, index, pid, doorbell, draining=visitor, connection=connection)
        try:
            fds = [self._arena_fd, doorbell, self._kick_fd]
            socket.send_fds(connection, [_welcome(Status.OK, index, "welcome")], fds)
        except OSError:
            os.close(doorbell)
            raise
        self.workers[index] = worker
        return worker

    def _check(self, hello: bytes, uid: int) -> str:
        """Returns the worker's name, or raises _Refused."""
        if len(hello) != HELLO.size or HELLO.unpack(hello)[0] != shm.MAGIC:
            raise _Refused(
                Status.BAD_HELLO, "the message is not a HELLO: is this a pylisten worker?"
            )
        _, major, minor, layout, padded = HELLO.unpack(hello)
        allowed = self._allowed_uids
        if uid not in (frozenset({0, os.geteuid()}) if allowed is None else allowed):
            raise _Refused(Status.NOT_ALLOWED, f"uid {uid} may not attach: add it to handoff-group")
        if major != shm.ABI_MAJOR or layout != shm.layout():
            raise _Refused(
                Status.ABI_MISMATCH,
                f"the simulator speaks ABI {shm.ABI_MAJOR}.{shm.ABI_MINOR}, this worker"
                f" {major}.{minor}: install both from the same release",
            )
        name = padded.rstrip(b"\0")
        if not _NAME.fullmatch(name):
            raise _Refused(
                Status.BAD_HELLO,
                "the worker's name is not 1 to 31 characters of A-Z a-z 0-9 . _ -",
            )
        text: str = name.decode("ascii")
        if any(worker.name == text for worker in self.workers.values()):
            raise _Refused(
                Status.NAME_IN_USE,
                f"a worker named {text} is attached already: choose another --name",
            )
        if len(self.workers) >= self._workers_max:
            raise _Refused(
                Status.TOO_MANY_WORKERS, f"{self._workers_max} workers are attached already"
            )
        return text

    @staticmethod
    def _peer(connection: socket.socket) -> tuple[int, int]:
        """The process and the user id at the other end."""
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, _ = _UCRED.unpack(credentials)
        return pid, uid

    @staticmethod
    def _answer(connection: socket.socket, status: Status, index: int, text: str) -> None:
        with contextlib.suppress(OSError):
            connection.send(_welcome(status, index, text))


def _welcome(status: Status, index: int, text: str) -> bytes:
    # One byte is left for the NUL at the end.
    cut = text.encode()[: _TEXT_BYTES - 1].decode("utf-8", "ignore").encode()
    return WELCOME.pack(shm.MAGIC, shm.ABI_MAJOR, shm.ABI_MINOR, status, index, cut)
