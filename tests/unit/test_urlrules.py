"""Where audio may go: patterns for hosts, forbidden addresses, and what a name stands for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylisten.urlrules import Resolver, UrlRefused, UrlRules, host_pattern, resolve

ANYWHERE = UrlRules()
V4, V6 = socket.AF_INET, socket.AF_INET6


def allowing(*patterns: str) -> UrlRules:
    return UrlRules(tuple(map(host_pattern, patterns)))


def answering(*addresses: str, scope: int = 0) -> Resolver:
    """A look-up that gives these addresses for every name."""

    async def look_up(host: str, port: int) -> Sequence[tuple[Any, ...]]:
        assert port > 0
        return [
            (V6, socket.SOCK_STREAM, 6, "", (address, port, 0, scope))
            if ":" in address
            else (V4, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    return look_up


async def refusal(url: str, rules: UrlRules = ANYWHERE, resolver: Resolver | None = None) -> str:
    with pytest.raises(UrlRefused) as caught:
        await resolve(url, rules, resolver=resolver)
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://127.0.0.1:9000/p?q=1", (V4, "127.0.0.1", 9000)),
        ("ws://127.1/", (V4, "127.0.0.1", 80)),
        ("https://10.1.2.3/", (V4, "10.1.2.3", 443)),
        ("wss://[::1]/", (V6, "::1", 443)),
        ("http://[2001:DB8::0:1]:8080", (V6, "2001:db8::1", 8080)),
        ("ws://[::ffff:10.1.2.3]/", (V4, "10.1.2.3", 80)),
    ],
)
async def test_a_literal_address_is_its_own_answer(url: str, address: tuple[Any, ...]) -> None:
    assert await resolve(url, ANYWHERE) == [address]


async def test_a_name_is_looked_up_once_and_its_addresses_are_connected_to() -> None:
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    found = await resolve(f"ws://LocalHost:{port}/", ANYWHERE)
    (address,) = [one for one in found if one.family == V4]
    assert tuple(address) == (V4, "127.0.0.1", port)
    _, writer = await asyncio.open_connection(address.address, address.port, family=address.family)
    writer.close()
    server.close()


async def test_the_order_of_the_resolver_is_kept_without_repetitions() -> None:
    resolver = answering("2001:db8::7", "192.0.2.1", "2001:db8::7", "::ffff:192.0.2.1")
    assert await resolve("wss://bot.example", ANYWHERE, resolver=resolver) == [
        (V6, "2001:db8::7", 443),
        (V4, "192.0.2.1", 443),
    ]


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("169.254.169.254", "a link-local address"),
        ("169.254.0.1", "a link-local address"),
        ("0xA9FEA9FE", "a link-local address"),
        ("2852039166", "a link-local address"),
        ("0251.0376.0251.0376", "a link-local address"),
        ("[::ffff:169.254.169.254]", "a link-local address"),
        ("[64:ff9b::a9fe:a9fe]", "a link-local address"),
        ("[fe80::1]", "a link-local address"),
        ("[febf::1]", "a link-local address"),
        ("[fd00:ec2::254]", "the address of a cloud metadata service"),
        ("[fd20:ce::254]", "the address of a cloud metadata service"),
        ("100.100.100.200", "the address of a cloud metadata service"),
        ("[::ffff:100.100.100.200]", "the address of a cloud metadata service"),
    ],
)
async def test_link_local_and_metadata_addresses_are_refused(host: str, why: str) -> None:
    text = await refusal(f"ws://{host}/latest/meta-data")
    assert why in text
    assert "[websocket] allow_link_local" in text
    assert await resolve(f"ws://{host}/", UrlRules(allow_link_local=True))


async def test_a_name_that_stands_for_such_an_address_is_refused() -> None:
    assert await refusal("ws://inno.cent/", resolver=answering("169.254.169.254", "fe80::1")) == (
        "audio may not go to inno.cent: 169.254.169.254 is a link-local address, fe80::1 is a "
        "link-local address ([websocket] allow_link_local is not set)"
    )


async def test_of_several_addresses_the_allowed_ones_remain() -> None:
    resolver = answering("fe80::1", "192.0.2.1", "169.254.1.1")
    assert await resolve("ws://printer.local", ANYWHERE, resolver=resolver) == [
        (V4, "192.0.2.1", 80)
    ]


async def test_a_link_local_address_keeps_its_scope() -> None:
    rules = UrlRules(allow_link_local=True)
    assert await resolve("ws://x", rules, resolver=answering("fe80::1", scope=2)) == [
        (V6, "fe80::1%2", 80)
    ]


@pytest.mark.parametrize(
    ("pattern", "host"),
    [
        ("*.example.com", "bot.example.com"),
        ("*.Example.COM", "a.b.EXAMPLE.com"),
        ("bot?.example.com", "bot7.example.com"),
        ("example.com.", "example.com"),
        ("example.com", "example.com."),
        ("*.bücher.example", "www.xn--bcher-kva.example"),
        ("*.xn--bcher-kva.example", "www.bücher.example"),
        ("10.0.*", "10.0.3.4"),
        ("127.0.0.1", "127.1"),
        ("127.0.0.1", "[::ffff:127.0.0.1]"),
        ("::1", "[0:0::1]"),
        ("[::1]", "[::1]"),
        ("fd12:*", "[fd12::7]"),
        ("*", "anything.example"),
    ],
)
async def test_a_host_that_matches_is_allowed(pattern: str, host: str) -> None:
    rules = allowing("other.example", pattern)
    assert await resolve(f"wss://{host}/", rules, resolver=answering("192.0.2.1"))


@pytest.mark.parametrize(
    ("pattern", "host"),
    [
        ("*.example.com", "example.com"),
        ("*.example.com", "notexample.com"),
        ("*.example.com", "x.example.com.evil.org"),
        ("bot.example.com", "botXexample.com"),
        ("bot?.example.com", "bot.example.com"),
        ("10.0.*", "10.1.0.0"),
        ("*.example.com", "192.0.2.1"),
    ],
)
async def test_any_other_host_is_refused_before_it_is_looked_up(pattern: str, host: str) -> None:
    async def never(host: str, port: int) -> Sequence[tuple[Any, ...]]:
        raise AssertionError("looked up")

    text = await refusal(f"wss://{host}/?token=t0ken", allowing(pattern), never)
    assert text == f"the host {host.lower()} is none of those that are allowed: {pattern}"


async def test_an_allowed_name_may_not_stand_for_a_forbidden_address() -> None:
    rules = allowing("*.example.com")
    text = await refusal("ws://a.example.com", rules, answering("169.254.169.254"))
    assert "link-local" in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ws://h",
        "h:80",
        "h/p",
        "a b",
        "u@h",
        ".",
        "a..b",
        "b*ü.example",
        "ü/x",
        "[a",
        "10.0.0.0/8",
    ],
)
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        host_pattern(text)


@pytest.mark.parametrize("host", ["a" * 70 + ".invalid", "a..b"])
async def test_a_name_that_is_nobodys_is_an_error_of_the_resolver(host: str) -> None:
    with pytest.raises(socket.gaierror):
        await resolve(f"ws://{host}/", ANYWHERE)


async def test_a_name_without_addresses_is_an_error_of_the_resolver() -> None:
    with pytest.raises(socket.gaierror, match="no address"):
        await resolve("ws://x", ANYWHERE, resolver=answering())


@pytest.mark.parametrize("url", ["", "nonsense", "ws://", "mailto:x@y"])
async def test_what_is_no_url_is_refused(url: str) -> None:
    assert await refusal(url)


@given(st.ip_addresses())
def test_no_forbidden_address_comes_out(address: Any) -> None:
    host = f"[{address}]" if address.version == 6 else str(address)
    for resolver in (None, answering(str(address))):
        try:
            found = asyncio.run(resolve(f"ws://{host}/", ANYWHERE, resolver=resolver))
        except UrlRefused:
            continue
        (one,) = found
        assert not one.address.startswith(("169.254.", "fe8", "fe9", "fea", "feb"))
        assert one.address not in ("100.100.100.200", "fd00:ec2::254")
