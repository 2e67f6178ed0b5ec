"""The operator's rules for where audio may go.

Who may write a verb could otherwise make a worker connect to whatever it can reach, such as the
service at a link-local address that hands out the credentials of a cloud machine. The rules are
applied to the host as it stands in the URL, and to each address that its name stands for; the
addresses that `resolve` returns are those to connect to. Looking the name up again would open a
way round the rules for who controls the answers (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import Url

from pylisten.errors import PylistenError

__all__ = ["Address", "Resolver", "UrlRefused", "UrlRules", "host_pattern", "resolve"]

_IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Looks a host name up, as `asyncio.loop.getaddrinfo` does for streams.
Resolver = Callable[[str, int], Awaitable[Sequence[tuple[Any, ...]]]]

# Services that give a cloud machine its credentials, where these are not at a link-local address.
_METADATA = frozenset(
    map(ipaddress.ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200"))
)

# RFC 6052: the last 32 bits are the IPv4 address that a gateway (NAT64) connects to.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

_NAME_PATTERN = re.compile(r"[a-z0-9*?_-]+(?:\.[a-z0-9*?_-]+)*")
_IPV6_PATTERN = re.compile(r"[0-9a-f*?]*:[0-9a-f:.*?]*")


class UrlRefused(PylistenError):
    """Audio may not go to this URL; ``str()`` says which rule forbids it."""


class Address(NamedTuple):
    """Where to connect to: ``address`` is numeric, and holds the scope (``%2``) if it needs one."""

    family: socket.AddressFamily
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class UrlRules:
    """``allowed_hosts`` are patterns as `host_pattern` gives them; none allow every host.

    Link-local addresses, and those of cloud metadata services, are refused unless
    ``allow_link_local`` is set.
    """

    allowed_hosts: tuple[str, ...] = ()
    allow_link_local: bool = False

    def check_host(self, host: str) -> None:
        """Raises UrlRefused unless ``host``, in lower-case ASCII, matches one of the patterns."""
        name = host.removesuffix(".")
        if self.allowed_hosts and not any(_matches(name, p) for p in self.allowed_hosts):
            patterns = ", ".join(self.allowed_hosts)
            raise UrlRefused(f"the host {name} is none of those that are allowed: {patterns}")

    def forbid(self, address: _IpAddress) -> str:
        """Why nothing may be sent to ``address``; empty if it may."""
        if self.allow_link_local:
            return ""
        if address.is_link_local:
            return "a link-local address"
        return "the address of a cloud metadata service" if address in _METADATA else ""


def host_pattern(text: str) -> str:
    """``text`` as a pattern for hosts: ``*`` stands for any characters, ``?`` for one.

    Lower-case, in ASCII (IDNA), without the brackets of an IPv6 address. Raises ValueError if it is
    no host, as where it has a scheme or a port.
    """
    pattern = text.lower().removesuffix(".")
    if pattern.startswith("[") and pattern.endswith("]"):
        pattern = pattern[1:-1]
    if not pattern.isascii():
        pattern = ".".join(map(_ascii, pattern.split(".")))
    try:
        return str(_unwrapped(ipaddress.ip_address(pattern)))
    except ValueError:
        if _NAME_PATTERN.fullmatch(pattern) or _IPV6_PATTERN.fullmatch(pattern):
            return pattern
        raise


async def resolve(url: str, rules: UrlRules, *, resolver: Resolver | None = None) -> list[Address]:
    """The addresses to connect to for ``url``, in the order to try them; at least one.

    Raises UrlRefused if the rules forbid the host, or each of its addresses; OSError
    (`socket.gaierror`) if its name cannot be looked up.
    """
    host, port = _host_and_port(url)
    rules.check_host(host)
    look_up = resolver or _getaddrinfo
    allowed: dict[Address, None] = {}
    reasons: dict[str, None] = {}
    for *_, sockaddr in await look_up(host, port):
        address, scope = _numeric(sockaddr)
        if reason := rules.forbid(_behind(address)):
            reasons[f"{address} is {reason}"] = None
        else:
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            allowed[Address(family, f"{address}%{scope}" if scope else str(address), port)] = None
    if allowed:
        return list(allowed)
    if not reasons:
        raise socket.gaierror(socket.EAI_NONAME, "no address is known for it")
    why = ", ".join(reasons)
    raise UrlRefused(f"audio may not go to {host}: {why} ([websocket] allow_link_local is not set)")


async def _getaddrinfo(host: str, port: int) -> Sequence[tuple[Any, ...]]:
    loop = asyncio.get_running_loop()
    try:
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a label of more than 63 characters
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None


def _host_and_port(url: str) -> tuple[str, int]:
    """The host in lower-case ASCII, without brackets; odd spellings of an IPv4 address are gone."""
    try:
        parsed = Url(url)
    except ValidationError:
        raise UrlRefused("not a valid URL") from None
    if not parsed.host or not parsed.port:
        raise UrlRefused("a URL without a host or a port")
    host = parsed.host.strip("[]")
    with suppress(ValueError):
        host = str(_unwrapped(ipaddress.ip_address(host)))
    return host, parsed.port


def _numeric(sockaddr: tuple[Any, ...]) -> tuple[_IpAddress, int]:
    """The address, and the scope of a link-local IPv6 address, which is 0 for all others."""
    text = str(sockaddr[0]).partition("%")[0]
    return _unwrapped(ipaddress.ip_address(text)), sockaddr[3] if len(sockaddr) > 3 else 0


def _unwrapped(address: _IpAddress) -> _IpAddress:
    """The IPv4 address that ``::ffff:…`` is another spelling of, or else the address itself."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _behind(address: _IpAddress) -> _IpAddress:
    """The address that packets to ``address`` are for."""
    if isinstance(address, ipaddress.IPv6Address) and address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _ascii(label: str) -> str:
    """A label of a pattern, in the form that it has in a URL. Raises ValueError if it has none."""
    if label.isascii() or re.search(r"[*?/:@#]", label):
        return label
    return Url(f"ws://{label}").host or label


def _matches(host: str, pattern: str) -> bool:
    parts = (re.escape(part) for part in re.split(r"([*?])", pattern))
    wild = {re.escape("*"): ".*", re.escape("?"): "."}
    return re.fullmatch("".join(wild.get(part, part) for part in parts), host) is not None
