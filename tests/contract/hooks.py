"""The application that an actionHook tells of the end of a listen."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import web
from jsonschema import Draft202012Validator

from tests.support.waiting import within

SECRET = "a-secret-of-the-tests"
_SCHEMA = Path(__file__).parents[2] / "docs/reference/schemas/hook.schema.json"


@dataclass(frozen=True)
class Hook:
    """One request, as it came."""

    method: str
    headers: dict[str, str]
    content: bytes  # that is signed: the body of a POST, the query string of a GET

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of a POST."""
        body: dict[str, Any] = json.loads(self.content)
        return body

    @property
    def genuine(self) -> bool:
        """Whether it is signed with `SECRET`."""
        time, _, signature = self.headers["Jambonz-Signature"].partition(",")
        signed = time.removeprefix("t=").encode() + b"." + self.content
        wanted = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        return hmac.compare_digest(signature, f"v1={wanted}")

    def faults(self) -> list[str]:
        """What the JSON Schema of hooks has against the body."""
        return [error.message for error in _validator().iter_errors(self.body)]


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(_SCHEMA.read_text(encoding="utf-8")))


class HookServer:
    """An HTTP server on a loopback port that keeps what comes. Use as an async context manager.

    ``statuses`` are answered in turn, the last one to all that follow.
    """

    def __init__(self, statuses: Sequence[int] = (200,)) -> None:
        self.hooks: list[Hook] = []
        self._statuses = list(statuses)
        self._news = asyncio.Condition()
        self._runner = web.ServerRunner(web.Server(self._take, access_log=None), shutdown_timeout=1)

    async def __aenter__(self) -> HookServer:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/ended"

    async def hook(self, count: int = 1, timeout_s: float = 15.0) -> Hook:
        """Waits for the `count`-th request."""
        async with within(timeout_s, lambda: f"hook {count}; {len(self.hooks)} came"), self._news:
            await self._news.wait_for(lambda: len(self.hooks) >= count)
        return self.hooks[count - 1]

    async def _take(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        content = body if request.method == "POST" else request.raw_path.partition("?")[2].encode()
        status = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
        async with self._news:
            self.hooks.append(Hook(request.method, dict(request.headers), content))
            self._news.notify_all()
        return web.Response(status=status)
