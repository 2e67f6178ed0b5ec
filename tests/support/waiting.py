"""Waiting, never for longer than is reasonable, and saying what was waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

_POLL_S = 0.02
T = TypeVar("T")


@asynccontextmanager
async def within(timeout_s: float, what: Callable[[], str]) -> AsyncIterator[None]:
    """Fails if its block takes longer; `what` says then what was waited for and what there is."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s:g} s: {what()}") from None


async def eventually(
    condition: Callable[[], Awaitable[T]], timeout_s: float = 10.0, what: str = "the condition"
) -> T:
    """Asks until the answer is true, and returns it: for states that no event announces."""
    answer: T | None = None
    async with within(timeout_s, lambda: f"{what}; last seen: {answer!r}"):
        while True:
            answer = await condition()
            if answer:
                break
            await asyncio.sleep(_POLL_S)
    return answer
