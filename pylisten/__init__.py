"""Streams live audio of FreeSWITCH calls to WebSocket servers, and plays what they send back."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("pylisten")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
