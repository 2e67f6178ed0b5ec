"""What pylisten raises.

Every error that a caller may want to catch descends from one root::

    PylistenError
    ├── ConfigError              pylisten.toml, the environment or a flag is wrong
    ├── VerbError                a listen verb is refused
    ├── WireError                a server's text frame is refused; the listen goes on
    │   └── QueueFull            too much waits to be played already: see pylisten.playback
    ├── ShmError (an OSError)    shared memory: a stale slot, a bad arena, a failed mapping
    └── EslError                 the event socket: see pylisten.esl

Messages are written for the person who reads them in a log or in an ``error`` frame: they name the
place, what was found there and what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ConfigError", "PylistenError", "Problem", "ShmError", "VerbError", "WireError"]


class PylistenError(Exception):
    """The root of everything that pylisten raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in a document: where it is, and what is wrong there.

    ``path`` is dotted (``bidirectionalAudio.sampleRate``) and empty for the document as a whole.
    """

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


class VerbError(PylistenError):
    """A listen verb is refused; ``problems`` holds every fault, ``str()`` joins them by "; "."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


class ConfigError(PylistenError):
    """The configuration is refused; each line of ``str()`` names source, key, found, expected."""


class ShmError(PylistenError, OSError):
    """A call into shared memory failed; ``errno`` and ``strerror`` say why."""


class WireError(PylistenError):
    """A text frame or a clip from the server is refused; becomes an ``error`` frame.

    ``code`` is a stable kebab-case word for programs, ``message`` a sentence for people, ``id`` the
    id of the clip exactly as the server gave it (None if it gave none).
    """

    def __init__(self, code: str, message: str, id: str | int | float | None = None) -> None:
        self.code = code
        self.message = message
        self.id = id
        super().__init__(f"{code}: {message}")
