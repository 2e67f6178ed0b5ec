"""Processes that the tests start: their output is kept, their end is made sure of."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

_running: list[Child] = []


def running() -> list[Child]:
    """The processes that are alive now, in the order of their start."""
    return list(_running)


def _die_with_parent() -> None:
    """Lets the kernel end the process if the test run itself is killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Child:
    """A process whose output goes to a file and can be waited for line by line.

    It belongs to no event loop, so that fixtures of any scope may own it. It must be started in the
    main thread: the kernel ends it with the thread that started it.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        directory: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.output_path = directory / f"{name}.out"
        self.log_paths = [self.output_path]
        self._marks: dict[Path, int] = {}
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._at_end = False
        self.process = subprocess.Popen(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=dict(env) if env is not None else None,
            preexec_fn=_die_with_parent,
        )
        self._pump = threading.Thread(target=self._read_output, name=f"{name} output", daemon=True)
        self._pump.start()
        _running.append(self)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    async def wait_line(self, prefix: str, timeout_s: float, start: int = 0) -> str:
        """Waits for a line of output that begins with `prefix`, from line number `start` on."""
        return await self._wait_line(lambda line: line.startswith(prefix), prefix, timeout_s, start)

    async def wait_line_with(self, fragment: str, timeout_s: float) -> str:
        """Waits for a line of output that has `fragment` in it."""
        return await self._wait_line(lambda line: fragment in line, fragment, timeout_s, 0)

    async def _wait_line(
        self, wanted: Callable[[str], bool], text: str, timeout_s: float, start: int
    ) -> str:
        def find() -> str | None:
            return next((line for line in self._lines[start:] if wanted(line)), None)

        def wait() -> str | None:
            with self._news:
                self._news.wait_for(lambda: self._at_end or find() is not None, timeout_s)
                return find()

        line = await asyncio.to_thread(wait)
        if line is None:
            state = "is alive" if self.alive else f"ended with {self.process.returncode}"
            raise AssertionError(
                f"{self.name} did not print {text!r} within {timeout_s} s; it {state}\n"
                f"{self.tail()}"
            )
        return line

    @property
    def line_count(self) -> int:
        """Lines printed so far."""
        with self._news:
            return len(self._lines)

    async def wait_end(self, timeout_s: float) -> int:
        """Waits until the process has ended and returns its exit status."""
        status = await asyncio.to_thread(self.process.wait, timeout_s)
        self._pump.join(5)
        self._forget()
        return status

    async def terminate(self, timeout_s: float = 15.0) -> int:
        """Asks the process to end (SIGTERM), waits, and returns its exit status."""
        if self.alive:
            self.process.terminate()
        return await self.wait_end(timeout_s)

    async def kill9(self) -> None:
        """Ends the process the hard way and makes sure that it is gone."""
        if self.alive:
            self.process.kill()
        await self.wait_end(10)
        assert not self.exists(), f"{self.name} survived SIGKILL"

    def exists(self) -> bool:
        """Whether the kernel knows a process of that id."""
        return Path(f"/proc/{self.pid}").exists()

    def mark(self) -> None:
        """The logs from here on are what :meth:`new_text` returns."""
        self._marks = {path: path.stat().st_size for path in self.log_paths if path.exists()}

    def new_text(self, limit: int = 12000) -> str:
        """What was logged since :meth:`mark`, at most the last `limit` bytes of each file."""
        parts = []
        for path in self.log_paths:
            if path.exists():
                data = path.read_bytes()[self._marks.get(path, 0) :]
                parts.append(data[-limit:].decode(errors="replace"))
        return "\n".join(part for part in parts if part)

    def tail(self, limit: int = 4000) -> str:
        """The last bytes of all logs."""
        parts = [path.read_bytes()[-limit:] for path in self.log_paths if path.exists()]
        return b"\n".join(parts).decode(errors="replace")

    def threads(self) -> int:
        """How many threads the process has."""
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def fds(self) -> list[str]:
        """What the file descriptors of the process refer to."""
        targets = []
        directory = Path(f"/proc/{self.pid}/fd")
        for entry in directory.iterdir():
            try:
                targets.append(os.readlink(entry))
            except FileNotFoundError:
                continue
        return sorted(targets)

    def rss_kb(self) -> int:
        """Resident memory, KiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError(f"{self.name} has no memory: has it ended?")

    def _forget(self) -> None:
        if self in _running:
            _running.remove(self)

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as source, self.output_path.open("ab") as copy:
            for raw in source:
                copy.write(raw)
                copy.flush()
                with self._news:
                    self._lines.append(raw.decode(errors="replace").rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._at_end = True
            self._news.notify_all()
