"""Waiting for a state that announces itself by no event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

_POLL_S = 0.02
T = TypeVar("T")


async def eventually(
    condition: Callable[[], Awaitable[T]], timeout_s: float = 10.0, what: str = "the condition"
) -> T:
    """Asks until the answer is true and returns it; fails, with the last answer, after a time."""
    answer: T | None = None
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                answer = await condition()
                if answer:
                    return answer
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {timeout_s} s, last seen {answer!r}") from None
