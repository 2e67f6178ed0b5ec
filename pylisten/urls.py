"""URLs in a verb: what they may be made of."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import Url

from pylisten.validation import refused

__all__ = ["HOOK_URL", "SERVER_URL", "UrlKind", "checked_url"]


@dataclass(frozen=True, slots=True)
class UrlKind:
    """What a URL is for: the schemes it may have, and where that which it must not hold belongs."""

    schemes: tuple[str, ...]
    credentials: str
    fragment: str


#: Where audio goes.
SERVER_URL = UrlKind(
    ("ws", "wss", "http", "https"), "wsAuth", "which a WebSocket URL cannot have (RFC 6455)"
)

#: Where a hook goes.
HOOK_URL = UrlKind(
    ("http", "https"),
    "actionHook.username and actionHook.password",
    "which is never sent; how often a hook is tried is said in the configuration",
)


def checked_url(text: str, kind: UrlKind) -> str:
    """``text`` in ASCII, with everything encoded for the wire.

    Raises pydantic's custom errors, none of which repeats the URL: it may hold a token.
    """
    scheme, _, rest = text.partition("://")
    if scheme.lower() not in kind.schemes:
        *most, last = (f"{allowed}://" for allowed in kind.schemes)
        raise refused(f"found another kind of URL, expected {', '.join(most)} or {last}")
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    if "@" in authority:
        raise refused(f"holds a user name or password, expected them in {kind.credentials}")
    if not authority or re.search(r"[\x00-\x20\x7f\\]", text):
        raise refused("has no host, or holds a space, a backslash or a control character")
    try:
        url = Url(text)
    except ValidationError as error:
        reason = error.errors(include_input=False)[0]["msg"].rpartition("URL, ")[2]
        raise refused(f"not a valid URL: {reason}") from None
    if url.port == 0:
        raise refused("not a valid URL: port 0")
    if url.fragment is not None:
        raise refused(f"has a fragment (#…), {kind.fragment}")
    return str(url)
