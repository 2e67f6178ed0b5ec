"""The simulator's event socket, seen by the client that the tests on a real switch use, too."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from pylisten.esl import Esl, Event
from pylisten.simulator.esl import EslServer
from tests.support.eslclient import EslClient, EslError


async def _reverse(argument: str) -> str:
    return argument[::-1] + "\n"


@pytest.fixture
async def server() -> AsyncIterator[EslServer]:
    server = EslServer("secret", {"reverse": _reverse})
    await server.start()
    yield server
    await server.close()


async def test_the_password_opens_and_nothing_else(server: EslServer) -> None:
    with pytest.raises(EslError, match="-ERR invalid"):
        await EslClient(server.port, "wrong").__aenter__()
    async with EslClient(server.port, "secret") as client:
        assert await client.api("reverse abc") == "cba"


async def test_nothing_runs_before_the_password(server: EslServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert await reader.readuntil(b"\n\n") == b"Content-Type: auth/request\n\n"
    writer.write(b"api reverse abc\n\n")
    assert b"-ERR command not found" in await reader.readuntil(b"\n\n")
    writer.close()
    await writer.wait_closed()


async def test_what_is_unknown_is_refused_and_the_connection_goes_on(server: EslServer) -> None:
    async with EslClient(server.port, "secret") as client:
        assert (await client.command("noop")).startswith("-ERR")
        assert (await client.command("event json ALL")).startswith("-ERR")
        assert (await client.command("filter Listen-Worker")).startswith("-ERR")
        assert (await client.api("frobnicate now")).startswith("-ERR frobnicate")
        assert await client.api("reverse abc") == "cba"


async def test_events_go_to_those_who_subscribed_and_pass_the_filter(server: EslServer) -> None:
    async with (
        EslClient(server.port, "secret") as w1,
        EslClient(server.port, "secret") as everything,
        EslClient(server.port, "secret") as ends,
    ):
        await w1.command("filter Listen-Worker w1")
        await w1.subscribe("CUSTOM listen::start listen::end")
        await everything.subscribe("CHANNEL_HANGUP CUSTOM listen::start listen::end")
        await ends.subscribe("CUSTOM listen::end")
        server.fire("listen::start", {"Listen-Worker": "w2"})
        server.fire("listen::start", {"Listen-Worker": "w1"})
        server.fire("listen::end", {"Listen-Worker": "w2"})
        server.fire("listen::end", {"Listen-Worker": "W1"})

        def seen(event: dict[str, str] | None) -> tuple[str, str]:
            assert event is not None
            return event["Event-Subclass"], event["Listen-Worker"]

        async with asyncio.timeout(5):
            to_w1 = [seen(await w1.events.get()) for _ in range(2)]
            to_all = [seen(await everything.events.get()) for _ in range(4)]
            to_ends = [seen(await ends.events.get()) for _ in range(2)]
    assert to_w1 == [("listen::start", "w1"), ("listen::end", "W1")]
    assert len(to_all) == 4
    assert to_ends == [("listen::end", "w2"), ("listen::end", "W1")]


async def test_a_value_cannot_forge_a_header(server: EslServer) -> None:
    name = "Bob\nUnique-ID: forged\n\n"
    async with EslClient(server.port, "secret") as client:
        await client.subscribe("CUSTOM listen::message")
        server.fire("listen::message", {"Listen-Text": name, "Unique-ID": "true", "Empty": ""})
        event = await client.wait_event("listen::message")
    assert event["Listen-Text"] == name
    assert event["Unique-ID"] == "true"
    assert "Empty" not in event


async def test_exit_says_goodbye(server: EslServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"auth secret\n\nexit\n\n")
    said = (await reader.read()).decode()
    assert "+OK accepted" in said
    assert "+OK bye" in said
    assert said.endswith("http://www.cluecon.com/\n")
    writer.close()
    await writer.wait_closed()


async def test_a_slow_command_holds_back_only_its_own_connection() -> None:
    release = asyncio.Event()

    async def slow(_: str) -> str:
        await release.wait()
        return "late\n"

    server = EslServer("secret", {"slow": slow, "reverse": _reverse})
    await server.start()
    async with EslClient(server.port, "secret") as one, EslClient(server.port, "secret") as other:
        late = asyncio.create_task(one.api("slow"))
        assert await other.api("reverse abc") == "cba"
        assert not late.done()
        release.set()
        assert await late == "late"
    await server.close()


async def test_the_worker_s_own_client_gets_along_with_it(server: EslServer) -> None:
    events: asyncio.Queue[Event] = asyncio.Queue()
    esl = Esl(
        "127.0.0.1",
        server.port,
        "secret",
        events=["listen::start"],
        filters={"Listen-Worker": "w1"},
        on_event=events.put_nowait,
    )
    await esl.start()
    try:
        await esl.wait_connected(10)
        assert await esl.api("reverse abc") == "cba"
        server.fire("listen::start", {"Listen-Worker": "w1", "Listen-ID": "4711"})
        async with asyncio.timeout(10):
            event = await events.get()
        assert event.headers["Listen-ID"] == "4711"
    finally:
        await esl.close()
