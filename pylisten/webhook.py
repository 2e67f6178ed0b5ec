"""Delivery of hooks: one HTTP request to the user's application when a listen has ended.

`Webhooks.send` returns at once. What it takes is tried until the application answers, or the tries
are used up, and then comes to exactly one of two ends: it is counted as delivered, or counted as
failed and written to the log with its body, so that nothing is lost without a trace.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Self
from urllib.parse import quote, urlencode
from weakref import WeakValueDictionary

import aiohttp
from pydantic_core import from_json
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)
from yarl import URL

from pylisten import __version__
from pylisten.config import WebhookConfig
from pylisten.errors import PylistenError
from pylisten.verb import ActionHook, WsAuth

__all__ = ["MAX_PENDING", "Counters", "Webhooks"]

log = logging.getLogger(__name__)

#: Hooks that may be under way; beyond it memory is worth more than another try.
MAX_PENDING = 10_000

# Requests at a time. The second keeps an application that hangs from holding up all the others.
_MAX_REQUESTS = 256
_MAX_REQUESTS_PER_ORIGIN = 32

_MAX_ANSWER_BYTES = 1024 * 1024

_DELIVERED = (200, 202, 204)


class _Failed(PylistenError):
    """A try failed, and another one would fail as well; ``str()`` says why, without the URL."""


class _FailedForNow(_Failed):
    """A try failed, and another one may succeed."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Hooks since the start. Each that was sent is ``delivered``, ``failed`` or ``pending``;
    ``retried`` counts the tries after first ones."""

    delivered: int
    failed: int
    retried: int
    pending: int


@dataclass(slots=True, eq=False)
class _Delivery:
    """One hook; ``signed`` is the body of a POST, and the query string of a GET."""

    listen_id: str
    method: str
    origin: str
    url: URL = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    signed: bytes = field(repr=False)
    accepted: bool = False


class Webhooks:
    """Delivers hooks while it is open: between `start` and `close`, or as a context manager.

    ``tls`` are the settings of https. At most ``max_pending`` hooks are under way; what comes
    beyond that fails at once.
    """

    def __init__(
        self, config: WebhookConfig, tls: ssl.SSLContext, *, max_pending: int = MAX_PENDING
    ) -> None:
        self._config = config
        self._tls = tls
        self._max_pending = max_pending
        self._session: aiohttp.ClientSession | None = None
        self._pending: dict[asyncio.Task[None], tuple[_Delivery, str]] = {}
        self._requests = asyncio.Semaphore(_MAX_REQUESTS)
        self._per_origin: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._delivered = 0
        self._failed = 0
        self._retried = 0

    @property
    def counters(self) -> Counters:
        """What has become of the hooks so far."""
        return Counters(self._delivered, self._failed, self._retried, len(self._pending))

    async def start(self) -> None:
        """Makes `send` possible; needs a running event loop."""
        # Connections are not kept: a try would fail where the application closes one just then.
        connector = aiohttp.TCPConnector(ssl=self._tls, force_close=True, limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"pylisten/{__version__}", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=self._config.timeout_s),
            auto_decompress=False,
            middlewares=(_no_repetition,),
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def send(self, hook: ActionHook, body: Mapping[str, object], *, listen_id: str) -> None:
        """Begins to deliver ``body`` to ``hook`` and returns at once; never raises.

        Values that are None are left out. ``listen_id`` tells the application which requests are
        tries of the same hook.
        """
        text = ""
        try:
            text = _json(body)
            delivery = _prepare(hook, body, text, listen_id)
            session = self._admit()
        except (_Failed, TypeError, ValueError, RecursionError) as exc:
            self._lost(listen_id, str(exc), text)
            return
        task = asyncio.create_task(self._deliver(session, delivery))
        self._pending[task] = delivery, text
        task.add_done_callback(self._finished)

    async def drain(self, timeout_s: float) -> int:
        """Waits until no hook is pending, but not longer than this; returns how many still are."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._pending:
                    await asyncio.wait(set(self._pending))
        except TimeoutError:
            pass
        return len(self._pending)

    async def close(self) -> None:
        """Gives up what is pending, as failed; see `drain`."""
        session, self._session = self._session, None
        tasks = list(self._pending)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if session:
            await session.close()

    def _admit(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise _Failed("pylisten delivers no hooks now: it starts or stops")
        if len(self._pending) >= self._max_pending:
            raise _Failed(f"{self._max_pending} hooks are under way already")
        return self._session

    # One hook.

    async def _deliver(self, session: aiohttp.ClientSession, delivery: _Delivery) -> None:
        config = self._config
        retrying = AsyncRetrying(
            stop=stop_after_attempt(config.attempts),
            # The window is twice the shortest pause at first, so that the first pause has a random
            # part too: hooks that fail together should not come back together.
            wait=wait_random_exponential(
                multiplier=2 * config.retry_min_s, min=config.retry_min_s, max=config.retry_max_s
            ),
            retry=retry_if_exception_type(_FailedForNow),
            before_sleep=partial(self._before_retry, delivery),
            reraise=True,
        )
        await retrying(self._try, session, delivery)

    def _before_retry(self, delivery: _Delivery, state: RetryCallState) -> None:
        self._retried += 1
        log.warning(
            "listen %s: try %d to deliver its hook to %s failed: %s; the next in %.1f s",
            delivery.listen_id,
            state.attempt_number,
            delivery.origin,
            state.outcome.exception() if state.outcome else "",
            state.upcoming_sleep,
        )

    async def _try(self, session: aiohttp.ClientSession, delivery: _Delivery) -> None:
        # Held by this frame, a semaphore lives in the dictionary as long as somebody needs it.
        per_origin = self._per_origin.setdefault(
            delivery.origin, asyncio.Semaphore(_MAX_REQUESTS_PER_ORIGIN)
        )
        async with per_origin, self._requests:
            try:
                await self._request(session, delivery)
            except TimeoutError as exc:
                raise _FailedForNow(f"no answer within {self._config.timeout_s:g} s") from exc
            except (aiohttp.ClientConnectionError, OSError) as exc:
                raise _FailedForNow(_explain(exc)) from exc
            except (aiohttp.InvalidURL, UnicodeError) as exc:
                raise _Failed("the host name in the URL of the hook is not valid") from exc
            except aiohttp.ClientError as exc:
                raise _Failed(f"the answer is not valid HTTP ({type(exc).__name__})") from exc

    async def _request(self, session: aiohttp.ClientSession, delivery: _Delivery) -> None:
        async with session.request(
            delivery.method,
            delivery.url,
            data=delivery.signed if delivery.method == "POST" else None,
            headers=delivery.headers | self._signature(delivery.signed),
            allow_redirects=False,
        ) as response:
            _judge(response.status)
            delivery.accepted = True
            try:
                answer = await _read(response.content)
            except (aiohttp.ClientError, OSError):
                return  # the application has taken the hook; what it wanted to add was cut off
        if verbs := _verbs(answer):
            log.info(
                "listen %s: its hook was answered with %d verbs, which this release does not run",
                delivery.listen_id,
                verbs,
            )

    def _signature(self, signed: bytes) -> dict[str, str]:
        """The header for one try: its time is that of the try, as receivers refuse old ones."""
        if self._config.secret is None:
            return {}
        now_s = int(time.time())
        key = self._config.secret.encode()
        digest = hmac.new(key, b"%d.%s" % (now_s, signed), hashlib.sha256).hexdigest()
        return {"Jambonz-Signature": f"t={now_s},v1={digest}"}

    # Its end.

    def _finished(self, task: asyncio.Task[None]) -> None:
        delivery, text = self._pending.pop(task)
        failure = None if task.cancelled() else task.exception()
        if delivery.accepted:
            self._delivered += 1
            log.debug("listen %s: its hook is delivered", delivery.listen_id)
        elif failure is None:
            self._lost(delivery.listen_id, "pylisten stopped", text)
        elif isinstance(failure, _Failed):
            self._lost(delivery.listen_id, f"{delivery.origin}: {failure}", text)
        else:
            self._lost(delivery.listen_id, "an error in pylisten", text, failure)

    def _lost(
        self, listen_id: str, reason: str, text: str, error: BaseException | None = None
    ) -> None:
        self._failed += 1
        log.error(
            "listen %s: its hook is not delivered: %s; body: %s",
            listen_id,
            reason,
            text,
            exc_info=error,
        )


def _prepare(hook: ActionHook, body: Mapping[str, object], text: str, listen_id: str) -> _Delivery:
    """The request for a hook. Raises _Failed if it cannot be made."""
    url, signed = _url(hook.url), text.encode("utf-8")
    headers = {"Pylisten-Delivery": listen_id} | _authorization(hook)
    if hook.method == "GET":
        url, signed = _with_query(url, body)
    else:
        headers["Content-Type"] = "application/json"
    return _Delivery(
        listen_id=listen_id,
        method=hook.method,
        origin=str(url.origin()),
        url=url,
        headers=headers,
        signed=signed,
    )


def _json(body: Mapping[str, object]) -> str:
    """As JavaScript's JSON.stringify writes it: receivers check signatures on what they parsed and
    wrote again."""
    present = {key: value for key, value in body.items() if value is not None}
    text = json.dumps(present, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # halves of surrogate pairs


def _url(text: str) -> URL:
    """Raises _Failed, which does not repeat the URL: it may hold a token."""
    try:
        return URL(text).with_fragment(None)
    except ValueError:
        raise _Failed("the URL of the hook is not valid") from None


def _with_query(url: URL, body: Mapping[str, object]) -> tuple[URL, bytes]:
    """``url`` with the body behind what its query string holds already; and that query string."""
    present = {key: _flat(value) for key, value in body.items() if value is not None}
    query = urlencode(present, quote_via=quote, errors="replace")
    if url.raw_query_string:
        query = f"{url.raw_query_string}&{query}"
    return URL(f"{url.with_query(None)}?{query}", encoded=True), query.encode("ascii")


def _flat(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _authorization(hook: ActionHook) -> dict[str, str]:
    if hook.username is None or hook.password is None:
        return {}
    auth = WsAuth(username=hook.username, password=hook.password)
    return {"Authorization": auth.authorization()}


def _judge(status: int) -> None:
    """Raises _Failed or _FailedForNow unless the status says that the hook was taken."""
    if status in _DELIVERED:
        return
    if status in range(500, 600):
        raise _FailedForNow(f"it answered HTTP {status}")
    if status in range(300, 400):
        raise _Failed(f"it redirects (HTTP {status}); redirects are refused")
    if status in (401, 403):
        raise _Failed(f"it refused the credentials or the signature (HTTP {status})")
    raise _Failed(f"it answered HTTP {status}, expected 200, 202 or 204")


async def _read(stream: aiohttp.StreamReader) -> bytes:
    """The answer; what is larger than anybody's verbs is nobody's, and read no further."""
    answer = bytearray()
    async for chunk in stream.iter_any():
        answer += chunk
        if len(answer) > _MAX_ANSWER_BYTES:
            return b""
    return bytes(answer)


def _verbs(answer: bytes) -> int:
    """How many verbs the application wants to be run."""
    try:
        verbs = from_json(answer)
    except ValueError:
        return 0
    return len(verbs) if isinstance(verbs, list) else 0


async def _no_repetition(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """aiohttp repeats a GET whose connection broke, unseen, unless it gets to see another error."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as exc:
        raise _FailedForNow(_explain(exc)) from exc


def _explain(exc: Exception) -> str:
    match exc:
        case aiohttp.ClientConnectorCertificateError():
            return f"its TLS certificate is not trusted ({exc.certificate_error})"
        case aiohttp.ClientSSLError():
            return "TLS failed: is this an https server?"
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return "connection refused: nobody listens on that port"
        case aiohttp.ClientConnectorError(os_error=socket.gaierror()):
            return "the host name cannot be resolved"
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer"
        case OSError(strerror=str(reason)) if reason:
            return f"the connection failed ({reason})"
        case _:
            return f"the connection failed ({type(exc).__name__})"
