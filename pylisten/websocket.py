"""Opening the WebSocket of a listen, and saying in plain words why it did not open."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
)
from websockets.typing import Subprotocol

from pylisten import __version__
from pylisten.config import WebSocketConfig
from pylisten.errors import PylistenError
from pylisten.urlrules import Address, UrlRefused, resolve

__all__ = ["SUBPROTOCOLS", "ConnectError", "Connection", "open_websocket", "tls_context"]

SUBPROTOCOLS = (Subprotocol("audio.jambonz.org"), Subprotocol("audio.drachtio.org"))

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""A frame must be read before it can be refused: up to here with an `error` frame, beyond by close
code 1009 (RFC 6455 section 7.4.1)."""

_CLOSE_TIMEOUT_S = 2.0


class ConnectError(PylistenError):
    """The WebSocket could not be opened; `str()` names the cause, and how to mend it if known."""


class Connection(ClientConnection):
    """The connection of one listen; it knows when its server was last heard of.

    It sends pings, but does not judge the answers. The library would: it takes a server that we
    hold back, whose pong waits behind audio that we do not read yet, for a dead one, and a dead one
    that takes nothing any more for one that is alive, as its own ping then waits to be sent.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heard_s = self.loop.time()
        """When anything came last, by the clock of the event loop."""

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self.heard_s = self.loop.time()
        super().data_received(data)


class _Connect(connect):
    """`connect` without redirects: credentials and audio go where the verb says, or nowhere."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def tls_context(config: WebSocketConfig) -> ssl.SSLContext:
    """The TLS settings of all connections. Raises OSError or ssl.SSLError for bad files."""
    context = ssl.create_default_context(cafile=config.ca_file)
    if config.client_cert:
        context.load_cert_chain(config.client_cert, config.client_key)
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def open_websocket(
    url: str,
    config: WebSocketConfig,
    tls: ssl.SSLContext,
    *,
    call_sid: str,
    headers: Mapping[str, str],
) -> Connection:
    """Opens the connection of one listen to a `ws` or `wss` URL, within the connect time-out.

    The operator's rules decide which addresses are tried; a server that echoes none of the
    subprotocols is accepted. Raises ConnectError.
    """
    sent = {**headers, "X-Call-Id": call_sid}
    try:
        async with asyncio.timeout(config.connect_timeout_s):
            addresses = await resolve(url, config.url_rules)
            for address in addresses[:-1]:
                with suppress(OSError):
                    return await _open(url, address, config, tls, sent)
            return await _open(url, addresses[-1], config, tls, sent)
    except (OSError, InvalidHandshake, EOFError, ValueError, UrlRefused) as exc:
        raise ConnectError(_explain(exc, config)) from exc


async def _open(
    url: str,
    address: Address,
    config: WebSocketConfig,
    tls: ssl.SSLContext,
    headers: Mapping[str, str],
) -> Connection:
    opened = await _Connect(
        url,
        create_connection=Connection,
        host=address.address,
        port=address.port,
        ssl=tls if url.startswith("wss:") else None,
        subprotocols=SUBPROTOCOLS,
        additional_headers=headers,
        user_agent_header=f"pylisten/{__version__}",
        compression=None,
        proxy=None,
        open_timeout=None,
        ping_interval=config.ping_interval_s,
        ping_timeout=None,
        close_timeout=_CLOSE_TIMEOUT_S,
        max_size=MAX_FRAME_BYTES,
        max_queue=16,
        write_limit=config.send_buffer_bytes,
    )
    assert isinstance(opened, Connection)
    return opened


def _explain(exc: Exception, config: WebSocketConfig) -> str:
    match exc:
        case ssl.SSLCertVerificationError():
            return (
                f"the server's TLS certificate is not trusted ({exc.verify_message}): "
                "install a valid one, or name its authority in [websocket] ca_file"
            )
        case ssl.SSLError():
            return f"TLS failed ({exc.reason or exc}): is this a wss server?"
        case TimeoutError():
            return f"the server did not answer within {config.connect_timeout_s:g} s"
        case ConnectionRefusedError():
            return "connection refused: nobody listens on that port"
        case ConnectionResetError():
            return "the server reset the connection: does it speak WebSocket, and TLS for wss?"
        case socket.gaierror():
            return f"the host name cannot be resolved ({exc.strerror})"
        case InvalidStatus() if exc.response.status_code in range(300, 400):
            return f"the server redirects (HTTP {exc.response.status_code}); redirects are refused"
        case InvalidStatus() if exc.response.status_code in (401, 403):
            return (
                f"the server refused the credentials (HTTP {exc.response.status_code}): "
                "see wsAuth and headers"
            )
        case InvalidStatus():
            return (
                f"the server answered HTTP {exc.response.status_code} instead of "
                "opening a WebSocket"
            )
        case InvalidMessage() | InvalidUpgrade() | EOFError():
            return f"the server does not speak WebSocket ({exc})"
        case NegotiationError():
            return f"the server chose what was not offered ({exc})"
        case _:
            return str(exc) or type(exc).__name__
