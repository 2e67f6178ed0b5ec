"""The simulated switch: what it answers, what it tells, and what becomes of its slots."""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from pylisten import shm
from pylisten.simulator import SimulatedCall, SimulatedSwitch
from tests.support.tones import silence
from tests.unit.simulator_hand import Hand, hand, until

URL = "ws://127.0.0.1:1/"
COMMON = {"Listen-Version", "Listen-ID", "Listen-Name", "Listen-Worker", "Unique-ID"}


def quiet_call(switch: SimulatedSwitch) -> SimulatedCall:
    """A call that says nothing for longer than any test takes."""
    call = SimulatedCall(silence(60_000, 8000), 8000)
    switch.add(call)
    return call


async def started(
    switch: SimulatedSwitch, worker: Hand, call: SimulatedCall, verb: str = URL
) -> dict[str, Any]:
    """Starts a listen that the worker accepts."""
    taken = asyncio.create_task(worker.take())
    reply = await switch.api(f"uuid_listen {call.uuid} start {verb}")
    listen = await taken
    assert reply == f"+OK {listen['id']}\n"
    return listen


async def document(switch: SimulatedSwitch, command: str) -> Any:
    return json.loads(await switch.api(command))


async def test_describe_holds_all_that_a_worker_needs() -> None:
    async with SimulatedSwitch() as switch, hand(switch) as worker:
        call = SimulatedCall(silence(9000, 8000), 8000, attributes={"from": "+4930123"})
        switch.add(call)
        verb = '{"url":"ws://host/x","mixType":"stereo","sampleRate":16000,"metadata":{"a":"ü"}}'
        listen = await started(switch, worker, call, verb)
    assert listen["uuid"] == listen["attributes"]["callSid"] == call.uuid
    assert listen["attributes"]["from"] == "+4930123"
    assert listen["attributes"]["direction"] == "inbound"
    assert (listen["sample_rate"], listen["mix_type"]) == (16000, "stereo")
    assert (listen["name"], listen["worker"]) == ("listen", "hand")
    assert (listen["adopted"], listen["blocking"]) == (False, False)
    assert json.loads(listen["verb"]) == json.loads(verb)


async def test_what_cannot_be_begun_is_refused_at_once() -> None:
    async with SimulatedSwitch() as switch, hand(switch):
        call = quiet_call(switch)
        reply = await switch.api(f"uuid_listen {call.uuid} start {URL} sampleRate=11025")
        assert reply.startswith("-ERR BAD_REQUEST sampleRate: found 11025, expected 8000,")
        assert (await document(switch, "listen status json"))["started"] == 0


async def test_a_verb_that_the_worker_refuses() -> None:
    async with SimulatedSwitch() as switch, hand(switch) as worker:
        call = quiet_call(switch)
        reply = asyncio.create_task(switch.api(f"uuid_listen {call.uuid} start {URL} colour=red"))
        listen_id = (await worker.event("listen::start"))["Listen-ID"]
        details = {"reason": "bad-request", "error": "colour: unknown property"}
        assert await worker.ctl(f"end {listen_id} {json.dumps(details)}") == "+OK"
        assert await reply == "-ERR BAD_REQUEST colour: unknown property\n"
        end = await worker.event("listen::end")
        assert (end["Listen-Reason"], end["Listen-Status"]) == ("bad-request", "failed")
        assert end["Listen-Error"] == "colour: unknown property"


async def test_refusals_have_the_codes_of_mod_listen() -> None:
    async with SimulatedSwitch(max_listens=2) as switch:
        call = quiet_call(switch)
        start = f"uuid_listen {call.uuid} start {URL}"
        assert (await switch.api(start)).startswith("-ERR NO_WORKER ")
        async with hand(switch) as worker:
            nobody = await switch.api(f"uuid_listen 4711 start {URL}")
            assert nobody.startswith("-ERR NO_SUCH_CHANNEL ")
            await started(switch, worker, call)
            assert (await switch.api(start)).startswith("-ERR NAME_IN_USE ")
            await started(switch, worker, call, f"{URL} name=second")
            third = await switch.api(f"{start} name=third")
            assert third.startswith("-ERR TOO_MANY_LISTENS ")
            other = await switch.api(f"uuid_listen {call.uuid} stop other")
            assert other.startswith("-ERR NO_SUCH_LISTEN ")
            gone = await worker.ctl("accept 00000000-0000-0000-0000-000000000000")
            assert gone.startswith("-ERR GONE ")


@pytest.mark.parametrize(
    "command",
    [
        "uuid_listen",
        "uuid_listen 4711",
        "uuid_listen 4711 start",
        "uuid_listen 4711 dance",
        "listen",
        "listen dance",
        "listen drain",
        "listen_ctl",
        "listen_ctl describe",
        "listen_ctl dance 4711",
    ],
)
async def test_misuse_is_answered_by_the_usage(command: str) -> None:
    async with SimulatedSwitch() as switch:
        assert re.match(rf"-USAGE: {command.split()[0]} ", await switch.api(command))


async def test_operators_commands_reach_the_worker() -> None:
    async with SimulatedSwitch() as switch, hand(switch) as worker:
        call = quiet_call(switch)
        await started(switch, worker, call)
        await started(switch, worker, call, f"{URL} name=bot")
        seen = []
        for words in (
            "pause",
            "pause bot drop",
            "resume bot",
            "kill",
            "kill bot",
            'send {"a": 1}',
            "send bot hello there",
        ):
            assert (await switch.api(f"uuid_listen {call.uuid} {words}")).startswith("+OK")
            event = await worker.event("listen::command")
            assert event.keys() >= COMMON
            argument = event.get("Listen-Argument", "")
            seen.append((event["Listen-Name"], event["Listen-Command"], argument))
    assert seen == [
        ("listen", "pause", "silence"),
        ("bot", "pause", "drop"),
        ("bot", "resume", ""),
        ("listen", "kill", ""),
        ("bot", "kill", ""),
        ("listen", "send", '{"a": 1}'),
        ("bot", "send", "hello there"),
    ]


async def test_a_stop_ends_the_listen_and_the_slot_comes_back() -> None:
    async with SimulatedSwitch() as switch, hand(switch) as worker:
        call = quiet_call(switch)
        listen = await started(switch, worker, call)
        assert await switch.api(f"uuid_listen {call.uuid} stop") == f"+OK {listen['id']}\n"
        end = await worker.event("listen::end")
        assert end.keys() >= COMMON
        assert (end["Listen-Reason"], end["Listen-Status"]) == ("stopped", "ok")
        items = await worker.drain_to_end(listen["slot"])
        assert items[-1].kind is shm.Kind.END
        assert (await worker.ctl(f"describe {listen['id']}")).startswith("-ERR GONE ")
        assert (await document(switch, "listen list json"))["listens"] == []
        status = await document(switch, "listen status json")
        assert (status["live"], status["slots"]["ended"]) == (0, 1)
        worker.handoff.arena.release(listen["slot"], listen["generation"])
        await until(lambda: not switch.listens)
        again = await started(switch, worker, call)
        assert again["slot"] != listen["slot"], "a slot rests as long as there are others"


async def test_a_worker_ends_a_listen_with_what_it_knows() -> None:
    async with SimulatedSwitch() as switch, hand(switch) as worker:
        listen = await started(switch, worker, quiet_call(switch))
        details = {
            "reason": "finish-key",
            "digits": "#",
            "bytes_sent": 320,
            "gap_ms": 20,
            "close_code": 1000,
            "close_reason": "finish key",
        }
        assert await worker.ctl(f"end {listen['id']} {json.dumps(details)}") == "+OK"
        end = await worker.event("listen::end")
        again = await worker.ctl(f"end {listen['id']} {json.dumps(details)}")
    assert end["Listen-Reason"] == "finish-key"
    assert end["Listen-Digits"] == "#"
    assert (end["Listen-Bytes-Sent"], end["Listen-Gap-Ms"]) == ("320", "20")
    assert (end["Listen-Close-Code"], end["Listen-Close-Reason"]) == ("1000", "finish key")
    assert again.startswith("-ERR GONE")


async def test_a_worker_fires_events_of_the_listen_and_no_others() -> None:
    async with SimulatedSwitch() as switch, hand(switch) as worker:
        seen: list[tuple[str, str]] = []
        fired: list[Mapping[str, str]] = []
        switch.watch(lambda name, headers: seen.append((name, headers.get("Listen-Url", ""))))
        switch.watch(lambda _, headers: fired.append(headers))
        listen = await started(switch, worker, quiet_call(switch))
        headers = {
            "Listen-Url": URL,
            "Note": "two\nlines",
            "Count": 3,
            "Listen-ID": "forged",
            "no good": "",
        }
        event = json.dumps({"event": "connect", "headers": headers})
        assert await worker.ctl(f"event {listen['id']} {event}") == "+OK"
        forged = await worker.ctl(f'event {listen["id"]} {{"event":"end"}}')
        assert forged.startswith("-ERR BAD_REQUEST")
    assert seen[:2] == [("listen::start", ""), ("listen::connect", URL)]
    assert fired[1]["Listen-ID"] == listen["id"]
    assert fired[1]["Listen-Note"] == "two lines"
    assert fired[1]["Listen-Count"] == "3"
    assert "no good" not in "".join(fired[1])


async def test_a_hang_up_ends_every_listen_of_the_call() -> None:
    async with SimulatedSwitch() as switch, hand(switch) as worker:
        call = quiet_call(switch)
        await started(switch, worker, call)
        await started(switch, worker, call, f"{URL} name=bot")
        assert (await switch.api(f"uuid_kill {call.uuid}")).startswith("+OK")
        ends = [await worker.event("listen::end") for _ in range(2)]
        assert call.ended.is_set()
        assert (await switch.api(f"uuid_kill {call.uuid}")).startswith("-ERR")
    assert {end["Listen-Name"] for end in ends} == {"listen", "bot"}
    assert {end["Listen-Reason"] for end in ends} == {"hangup"}


async def test_another_worker_adopts_and_goes_on_where_the_first_was() -> None:
    async with SimulatedSwitch() as switch, hand(switch, "heir") as heir:
        heir_index = heir.handoff.worker
        call = quiet_call(switch)
        async with hand(switch, "first") as first:
            await started(switch, heir, call, f"{URL} name=a")
            listen = await started(switch, first, call, f"{URL} name=b")
            assert listen["worker"] == "first"
        adopted = await heir.event("listen::adopt")
        assert adopted["Listen-ID"] == listen["id"]
        assert adopted["Listen-From"] == "first"
        described = await heir.describe(listen["id"])
        assert (described["worker"], described["adopted"]) == ("heir", True)
        assert described["generation"] == listen["generation"]
        assert switch.arena.info(listen["slot"]).worker == heir_index
        await until(lambda: call.duration_s >= 0.1)
        heir.attach(described)
        switch.hang_up(call)
        items = await heir.drain_to_end(listen["slot"])
        assert items[0].kind is shm.Kind.AUDIO


async def test_a_listen_waits_for_a_worker_and_is_given_to_it() -> None:
    async with SimulatedSwitch() as switch:
        call = quiet_call(switch)
        async with hand(switch, "first") as first:
            listen = await started(switch, first, call)
        await until(lambda: not switch.workers)
        (row,) = (await document(switch, "listen list json"))["listens"]
        assert row["worker"] == ""
        async with hand(switch, "second") as second:
            assert (await second.event("listen::adopt"))["Listen-ID"] == listen["id"]
            (row,) = (await document(switch, "listen list json"))["listens"]
            assert (row["worker"], row["slot"]) == ("second", listen["slot"])


async def test_an_end_before_the_worker_has_accepted() -> None:
    async with SimulatedSwitch() as switch, hand(switch) as worker:
        call = quiet_call(switch)
        reply = asyncio.create_task(switch.api(f"uuid_listen {call.uuid} start {URL}"))
        await worker.event("listen::start")
        switch.hang_up(call)
        assert await reply == "-ERR GONE it ended at once: hangup\n"


async def test_an_orphan_has_nobody_to_command() -> None:
    async with SimulatedSwitch() as switch:
        call = quiet_call(switch)
        async with hand(switch) as worker:
            await started(switch, worker, call)
        await until(lambda: not switch.workers)
        reply = await switch.api(f"uuid_listen {call.uuid} kill")
        assert reply == "-ERR NO_WORKER it waits for a worker\n"
        (row,) = (await document(switch, "listen list json"))["listens"]
        assert row["state"] == "orphan"


async def test_a_listen_for_which_nobody_comes_ends() -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with SimulatedSwitch(adopt_timeout_ms=100) as switch:
        switch.watch(
            lambda name, headers: (
                ended.set_result(headers["Listen-Reason"]) if name == "listen::end" else None
            )
        )
        call = quiet_call(switch)
        async with hand(switch) as worker:
            await started(switch, worker, call)
        async with asyncio.timeout(10):
            assert await ended == "worker-lost"
        await until(lambda: not switch.listens)
        assert not call.ended.is_set(), "the call goes on"


async def test_draining_gives_the_listens_away() -> None:
    async with SimulatedSwitch() as switch, hand(switch, "old") as old:
        call = quiet_call(switch)
        listen = await started(switch, old, call)
        async with hand(switch, "new") as new:
            assert (await switch.api("listen drain old")).startswith("+OK")
            assert (await new.event("listen::adopt"))["Listen-From"] == "old"
            assert (await new.describe(listen["id"]))["worker"] == "new"
            rows = (await document(switch, "listen workers json"))["workers"]
            assert {row["name"]: (row["listens"], row["state"]) for row in rows} == {
                "old": (0, "draining"),
                "new": (1, "attached"),
            }
        nobody = await switch.api("listen drain nobody")
        assert nobody.startswith("-ERR NO_SUCH_WORKER")


async def test_new_listens_go_to_the_worker_with_the_fewest() -> None:
    async with SimulatedSwitch() as switch, hand(switch, "a") as a, hand(switch, "b") as b:
        call = quiet_call(switch)
        await started(switch, a, call, f"{URL} name=one")
        await started(switch, b, call, f"{URL} name=two")
        await started(switch, a, call, f"{URL} name=three")


async def test_operators_see_what_runs() -> None:
    async with SimulatedSwitch() as switch, hand(switch) as worker:
        call = quiet_call(switch)
        listen = await started(switch, worker, call)
        status = await document(switch, "listen status json")
        (row,) = (await document(switch, "listen list json"))["listens"]
        of_call = await document(switch, f"uuid_listen {call.uuid} list json")
        text = await switch.api("listen list")
        assert " 1 live, at most 64" in await switch.api("listen status")
        assert "hand" in await switch.api("listen workers")
    assert (status["live"], status["workers"], status["started"]) == (1, 1, 1)
    assert status["abi"] == f"{shm.ABI_MAJOR}.{shm.ABI_MINOR}"
    assert row["id"] == listen["id"]
    assert row["state"] == "live"
    assert row["counters"]["dropped"]["near"] == 0
    assert [each["id"] for each in of_call["listens"]] == [listen["id"]]
    assert listen["id"] in text


async def test_it_says_that_it_is_ready() -> None:
    async with SimulatedSwitch() as switch:
        assert "is ready" in await switch.api("status")
        assert await switch.api("module_exists mod_listen") == "true"
        assert await switch.api("module_exists mod_sofia") == "false"
        assert (await switch.api("version")).startswith("pylisten simulator ")
