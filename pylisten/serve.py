"""`pylisten serve`: one worker in this process, or several in processes of their own."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence

from pylisten import __version__
from pylisten.config import Config
from pylisten.worker import Worker

__all__ = ["serve"]

log = logging.getLogger(__name__)

_RESTART_S = 1.0
_PR_SET_PDEATHSIG = 1  # prctl(2)


def serve(config: Config, *, workers: int | None = None, name: str | None = None) -> int:
    """Serves until SIGTERM or SIGINT: the first drains, a second one stops. Returns the exit code.

    Prints `pylisten ready: …` at each attachment to a switch, and notifies systemd.
    """
    count = workers or config.workers
    run = _run_one(config, name) if count == 1 else _run_many(count, name or config.name)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(run)
    code: int = uvloop.run(run)  # untyped where it is not installed
    return code


def _notify_systemd(state: str) -> None:
    """Tells systemd, if it started us: see sd_notify(3)."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(state.encode(), "\0" + path[1:] if path[0] == "@" else path)
        except OSError as exc:
            log.warning("cannot notify systemd at %s: %s", path, exc)


async def _run_one(config: Config, name: str | None) -> int:
    worker = Worker(config, name)
    loop = asyncio.get_running_loop()
    draining: list[asyncio.Task[None]] = []

    def on_ready() -> None:
        print(f"pylisten ready: {worker.name} at {config.handoff_socket}", flush=True)
        _notify_systemd("READY=1")

    def on_signal() -> None:
        _notify_systemd("STOPPING=1")
        if draining:
            worker.stop()
        else:
            draining.append(loop.create_task(worker.drain()))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    print(f"pylisten {__version__}: waiting for the switch", flush=True)
    await worker.run(on_ready)
    return 0


async def _run_many(count: int, name: str) -> int:
    """Keeps `count` processes running and passes signals on to them.

    They run in sessions of their own, so that Ctrl-C reaches them once, through here.
    """
    stopping = asyncio.Event()
    running: dict[int, asyncio.subprocess.Process] = {}

    def on_signal() -> None:
        stopping.set()
        for process in running.values():
            if process.returncode is None:
                process.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)

    async def keep(index: int) -> None:
        while not stopping.is_set():
            running[index] = process = await asyncio.create_subprocess_exec(
                *_command(f"{name}-{index}"),
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
            code = await process.wait()
            if not stopping.is_set():
                log.error("worker %d ended with code %d; starting it again", index, code)
                await asyncio.sleep(_RESTART_S)

    await asyncio.gather(*(keep(index) for index in range(1, count + 1)))
    return 0


def _end_with_parent() -> None:
    """In a child: asks the kernel for SIGTERM when the parent dies, however it does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _command(name: str) -> Sequence[str]:
    """This command again, for one worker of its own name: the later of two flags holds."""
    return [sys.executable, "-m", "pylisten", *sys.argv[1:], "--workers", "1", "--name", name]
