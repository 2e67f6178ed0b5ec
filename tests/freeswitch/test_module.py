"""mod_listen as an operator and a dialplan see it."""

from __future__ import annotations

import asyncio

import pytest

from tests.freeswitch.conftest import BootSwitch, StartWorker
from tests.freeswitch.scene import (
    assert_echo,
    assert_nothing_left,
    assert_reason,
    call_listen,
    connected,
    listens,
    result,
    verb,
)
from tests.support import tones
from tests.support.freeswitch import PrivateSwitch
from tests.support.sip import CallFailed, SipAgent
from tests.support.worker import Worker
from tests.support.wsserver import ListenServer

pytestmark = pytest.mark.freeswitch


@pytest.mark.usefixtures("worker")
class TestApplications:
    """`listen`, `listen_start` and `listen_stop`."""

    async def test_listen_leaves_its_result_in_variables(
        self, switch: PrivateSwitch, agent: SipAgent, server: ListenServer
    ) -> None:
        """Key, length and id of a blocking listen are there when the dialplan goes on."""
        call, stream = await connected(agent, switch, server, finishOnKey="#*")
        await stream.audio(0.5)
        await call.rtp.digit("5")
        await call.rtp.digit("#")
        await assert_reason(switch, call, "finish-key", "ok")
        found = await result(switch, call)
        assert found["digits"] == "#"
        assert found["id"] == stream.first["listenId"]
        assert 500 <= int(found["duration_ms"]) < 5000
        await stream.wait_closed()
        assert (stream.close_code, stream.close_reason) == (1000, "finish-key")

    async def test_listen_answers_the_call(
        self, switch: PrivateSwitch, agent: SipAgent, server: ListenServer
    ) -> None:
        """A call that nobody has answered is answered, but not for a bad verb."""
        call, stream = await connected(agent, switch, server, "t-listen-unanswered")
        await stream.audio(0.2)
        await stream.disconnect()
        await call.wait_ended()
        with pytest.raises(CallFailed, match="603"):
            await call_listen(agent, switch, "nonsense", "t-listen-unanswered")

    async def test_early_media(
        self, switch: PrivateSwitch, agent: SipAgent, server: ListenServer
    ) -> None:
        """earlyMedia: the server hears and speaks, and the call is never answered."""

        async def serve() -> None:
            stream = await server.stream()
            assert stream.first["callStatus"] != "in-progress"
            await stream.audio(0.2)
            await stream.disconnect()

        task = asyncio.create_task(serve())
        with pytest.raises(CallFailed, match="603"):
            await call_listen(agent, switch, verb(server, earlyMedia=True), "t-listen-unanswered")
        await task

    async def test_the_shorthand_is_the_same_verb(
        self, switch: PrivateSwitch, agent: SipAgent, server: ListenServer
    ) -> None:
        """`<url> key=value` nests by dots and types its words."""
        argument = (
            f"{server.url} mixType=stereo sampleRate=16000 name=short metadata.customer=4711 "
            "metadata.vip=true"
        )
        call = await call_listen(agent, switch, argument)
        stream = await server.stream_of(call.uuid)
        assert stream.first["mixType"] == "stereo"
        assert stream.first["sampleRate"] == 16000
        assert stream.first["name"] == "short"
        assert stream.first["vip"] is True
        assert str(stream.first["customer"]) == "4711"

    async def test_the_upgrade_and_the_first_frame(
        self, switch: PrivateSwitch, agent: SipAgent, server: ListenServer
    ) -> None:
        """Who calls, and that it is us who connect, stands where the protocol says."""
        argument = verb(
            server,
            wsAuth={"username": "u", "password": "p"},
            headers={"X-Tenant": "blue"},
            metadata={"quote": "it's 100%", "list": [1, {"a": None}]},
        )
        call = await call_listen(agent, switch, argument, display_name="Alice Example")
        stream = await server.stream_of(call.uuid)
        headers = stream.request_headers
        assert stream.offered_subprotocols == ["audio.jambonz.org", "audio.drachtio.org"]
        assert headers["Authorization"] == "Basic dTpw"
        assert headers["X-Tenant"] == "blue"
        assert headers["X-Call-Id"] == call.uuid
        assert headers["User-Agent"].startswith("pylisten/")
        assert "Sec-WebSocket-Extensions" not in headers
        first = stream.first
        assert first["direction"] == "inbound"
        assert first["callerName"] == "Alice Example"
        assert first["callId"] == call.uuid
        assert (first["quote"], first["list"]) == ("it's 100%", [1, {"a": None}])
        assert first["from"] == agent.user
        assert first["to"] == "t-listen"

    async def test_one_after_the_other(
        self, switch: PrivateSwitch, agent: SipAgent, server: ListenServer
    ) -> None:
        """A second listen of the same call starts afresh."""
        call = await call_listen(
            agent, switch, verb(server), "t-listen-twice", listen_next=verb(server, name="next")
        )
        await (await server.stream(0)).disconnect()
        second = await server.stream(1)
        assert second.first["name"] == "next"
        await second.audio(0.2)
        await second.disconnect()
        await assert_echo(call)

    async def test_start_and_stop_in_the_dialplan(
        self, switch: PrivateSwitch, agent: SipAgent, server: ListenServer
    ) -> None:
        """A background listen lasts from listen_start to listen_stop."""
        call = await call_listen(
            agent, switch, verb(server, name="part"), "t-start-stop", stop="part"
        )
        stream = await server.stream_of(call.uuid)
        await assert_reason(switch, call, "stopped", "ok")
        await stream.wait_closed()
        assert stream.seconds == pytest.approx(1.0, abs=0.3)
        assert stream.close_reason == "stopped"

    async def test_keys_are_passed_on(
        self, switch: PrivateSwitch, agent: SipAgent, server: ListenServer
    ) -> None:
        """passDtmf: each key with its length, in order, as a text frame."""
        call, stream = await connected(agent, switch, server, passDtmf=True)
        await call.rtp.digit("2", duration_ms=200)
        await call.rtp.digit("#", duration_ms=100)
        await stream.text("dtmf", count=2)
        assert [text["dtmf"] for text in stream.of_type("dtmf")] == ["2", "#"]
        assert [int(text["duration"]) for text in stream.of_type("dtmf")] == [1600, 800]
        assert isinstance(stream.of_type("dtmf")[0]["duration"], str)


@pytest.mark.usefixtures("worker")
class TestReasons:
    """Each end has its reason, and what follows it in the dialplan runs if the call is up."""

    async def test_disconnect_closed_and_max_length(
        self, switch: PrivateSwitch, agent: SipAgent, server: ListenServer
    ) -> None:
        """The server asks, the server closes, the time is over."""
        call, stream = await connected(agent, switch, server)
        await stream.disconnect()
        await assert_reason(switch, call, "disconnect", "ok")
        call, stream = await connected(agent, switch, server)
        await stream.websocket.close(1000, "bye")
        await assert_reason(switch, call, "closed", "ok")
        call, stream = await connected(agent, switch, server, maxLength=1)
        await assert_reason(switch, call, "max-length", "ok")
        await stream.wait_closed()
        assert stream.seconds == pytest.approx(1.0, abs=0.04)

    async def test_stopped_and_break(
        self, switch: PrivateSwitch, agent: SipAgent, server: ListenServer
    ) -> None:
        """An operator ends the listen, or whatever application runs."""
        for command, reason in (("uuid_listen {} stop", "stopped"), ("uuid_break {}", "break")):
            call, _ = await connected(agent, switch, server)
            assert (await switch.api(command.format(call.uuid))).startswith("+OK")
            await assert_reason(switch, call, reason, "ok")

    async def test_hangup_and_transfer(
        self, switch: PrivateSwitch, agent: SipAgent, server: ListenServer
    ) -> None:
        """The call ends, or goes elsewhere."""
        async with switch.events("CUSTOM listen::end") as events:
            call, stream = await connected(agent, switch, server)
            await stream.audio(0.2)
            await call.hangup()
            event = await events.wait_event("listen::end", Unique_ID=call.uuid)
            assert event["Listen-Reason"] == "hangup"
            await stream.wait_closed()
            assert (stream.close_code, stream.close_reason) == (1000, "hangup")

            call, stream = await connected(agent, switch, server)
            await switch.api(f"uuid_transfer {call.uuid} echo")
            event = await events.wait_event("listen::end", Unique_ID=call.uuid)
            assert event["Listen-Reason"] == "transfer"
            await assert_echo(call)

    async def test_the_end_is_told_once(
        self, switch: PrivateSwitch, agent: SipAgent, server: ListenServer
    ) -> None:
        """Server, operator and caller end a listen at the same time: one event."""
        async with switch.events("CUSTOM listen::start listen::end") as events:
            call, stream = await connected(agent, switch, server)
            await asyncio.gather(
                stream.disconnect(),
                switch.api(f"uuid_listen {call.uuid} stop"),
                call.hangup(),
            )
            await stream.wait_closed()
            await assert_nothing_left(switch)
            _, marker = await connected(agent, switch, server, name="marker")
            listen_id = stream.first["listenId"]
            names = []
            while (event := await events.events.get()) is not None:
                if event["Listen-ID"] == marker.first["listenId"]:
                    break
                if event["Listen-ID"] == listen_id:
                    names.append(event["Event-Subclass"])
        assert names == ["listen::start", "listen::end"]


@pytest.mark.usefixtures("worker")
class TestOperators:
    """The API: `uuid_listen` and `listen`."""

    async def test_background_listens_by_uuid(
        self, switch: PrivateSwitch, agent: SipAgent, server: ListenServer
    ) -> None:
        """Several on one channel, told apart by name; one is stopped, the other goes on."""
        call = await agent.call(switch.sip_port, "echo")
        reply = await switch.api(f"uuid_listen {call.uuid} start {server.url} name=one")
        assert reply.startswith("+OK ")
        first = await server.stream(0)
        assert first.first["listenId"] == reply.split()[1]
        await switch.api(f"uuid_listen {call.uuid} start {verb(server, name='two')}")
        second = await server.stream(1)
        shown = await switch.api(f"uuid_listen {call.uuid} list")
        assert "one" in shown
        assert "two" in shown
        assert {listen["name"] for listen in await listens(switch)} == {"one", "two"}
        assert (await switch.api(f"uuid_listen {call.uuid} stop one")).startswith("+OK")
        await first.wait_closed()
        await second.audio(second.seconds + 0.2)
        await assert_echo(call)

    async def test_a_name_can_be_used_once_at_a_time(
        self, switch: PrivateSwitch, agent: SipAgent, server: ListenServer
    ) -> None:
        """A second listen of the same name on the same channel is refused."""
        call = await agent.call(switch.sip_port, "park")
        start = f"uuid_listen {call.uuid} start {server.url}"
        assert (await switch.api(start)).startswith("+OK")
        assert (await switch.api(start)).startswith("-ERR ")
        assert len(await listens(switch)) == 1

    async def test_send_and_kill(
        self, switch: PrivateSwitch, agent: SipAgent, server: ListenServer
    ) -> None:
        """An operator sends a text frame to the server and stops what it plays."""
        call, stream = await connected(agent, switch, server)
        text = '{"type":"hint","data":{"n":1}}'
        assert (await switch.api(f"uuid_listen {call.uuid} send {text}")).startswith("+OK")
        assert (await stream.text("hint"))["data"] == {"n": 1}
        await stream.play(tones.tone(700, 5000, 8000), 8000)
        await call.rtp.hear(lambda track: track.last_loud_ns() > 0)
        assert (await switch.api(f"uuid_listen {call.uuid} kill")).startswith("+OK")
        assert (await stream.text("playDone"))["data"]["reason"] == "killed"

    async def test_messages_of_the_server_become_events(
        self, switch: PrivateSwitch, agent: SipAgent, server: ListenServer
    ) -> None:
        """What is not part of the protocol is passed on as listen::message."""
        async with switch.events("CUSTOM listen::message") as events:
            call, stream = await connected(agent, switch, server)
            await stream.send({"type": "transfer", "data": {"to": "1234", "x": "a\nb"}})
            event = await events.wait_event("listen::message", Unique_ID=call.uuid)
        assert '"1234"' in event["Listen-Message"]

    @pytest.mark.parametrize("what", ["status", "list", "workers"])
    async def test_every_form_has_json(
        self, switch: PrivateSwitch, agent: SipAgent, server: ListenServer, what: str
    ) -> None:
        """The same facts for people and for programs."""
        await connected(agent, switch, server)
        assert isinstance(await switch.json(f"listen {what} json"), dict)
        text = await switch.api(f"listen {what}")
        assert text
        assert not text.startswith(("{", "-"))

    @pytest.mark.parametrize(
        "command", ["listen", "listen nonsense", "uuid_listen", "uuid_listen x", "listen drain"]
    )
    async def test_wrong_use_explains_itself(self, switch: PrivateSwitch, command: str) -> None:
        """-USAGE for what has the wrong form."""
        assert (await switch.api(command)).startswith("-USAGE: ")

    async def test_unknown_things_are_named(self, switch: PrivateSwitch, agent: SipAgent) -> None:
        """-ERR <CODE> for what does not exist."""
        call = await agent.call(switch.sip_port, "park")
        for command in (
            "uuid_listen no-such-uuid stop",
            f"uuid_listen {call.uuid} stop",
            f"uuid_listen {call.uuid} stop no-such-name",
            "listen drain no-such-worker",
            "listen_ctl describe no-such-listen",
        ):
            assert (await switch.api(command)).startswith("-ERR "), command


class TestLifeOfTheModule:
    """Loading, unloading and settings, on a switch of one's own."""

    async def test_unload_waits_for_listens_and_settings_are_reread(
        self,
        boot_switch: BootSwitch,
        start_worker: StartWorker,
        agent: SipAgent,
        server: ListenServer,
    ) -> None:
        """Not while a listen lives; afterwards cleanly, twice, and its worker comes back."""
        switch = await boot_switch()
        worker: Worker = await start_worker(switch)
        call, stream = await connected(agent, switch, server)
        refused = await switch.unload_module()
        assert refused.startswith("-ERR"), refused
        await stream.audio(stream.seconds + 0.2)
        await stream.disconnect()
        await assert_reason(switch, call, "disconnect")
        await call.hangup()
        await assert_nothing_left(switch)

        for _ in range(2):
            lines = worker.child.line_count
            assert (await switch.unload_module()).startswith("+OK")
            assert await switch.api("module_exists mod_listen") == "false"
            assert (await switch.load_module()).startswith("+OK")
            await worker.child.wait_line("pylisten ready", 30, start=lines)
            call, stream = await connected(agent, switch, server)
            await stream.audio(0.2)
            await call.hangup()
            await assert_nothing_left(switch)

        switch.write_settings({"adopt-timeout-ms": "100"})
        assert (await switch.api("listen reload")).startswith("+OK")
        call, stream = await connected(agent, switch, server)
        await worker.kill9()
        await assert_reason(switch, call, "worker-lost", "failed")
        await call.hangup()
        switch.write_settings({"adopt-timeout-ms": "nonsense"})
        assert await switch.api("listen reload")
        assert switch.child.alive

    async def test_without_a_configuration_file(
        self, boot_switch: BootSwitch, start_worker: StartWorker, agent: SipAgent
    ) -> None:
        """A missing file means the defaults."""
        switch = await boot_switch()
        assert (await switch.unload_module()).startswith("+OK")
        switch.listen_conf.write_text("<include/>\n")
        await switch.api("reloadxml")
        assert (await switch.load_module()).startswith("+OK")
        status = await switch.json("listen status json")
        assert status["max_listens"] == 1024
        assert status["handoff_socket"] == str(switch.handoff_socket)
        await start_worker(switch)
        async with ListenServer() as server:
            call, stream = await connected(agent, switch, server)
            await stream.audio(0.2)
            await call.hangup()

    async def test_the_switch_shuts_down_under_live_listens(
        self,
        boot_switch: BootSwitch,
        start_worker: StartWorker,
        agent: SipAgent,
        server: ListenServer,
    ) -> None:
        """Shutting down ends all listens properly and hangs nowhere."""
        switch = await boot_switch()
        await start_worker(switch)
        streams = [(await connected(agent, switch, server, ext))[1] for ext in EXTENSIONS]
        for stream in streams:
            await stream.play(tones.tone(500, 5000, 8000), 8000)
        assert await switch.child.terminate(20) == 0
        for stream in streams:
            await stream.wait_closed()
            assert stream.close_code in (1000, 1001)


EXTENSIONS = ("t-listen", "t-start-echo", "t-start-park")
