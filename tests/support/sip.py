"""A SIP user agent for the tests: UDP on loopback, enough of RFC 3261 for calls with one switch."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.support.rtp import CODECS, EVENT_PAYLOAD, PCMU, Codec, RtpSession
from tests.support.waiting import within

_T1_S = 0.5
_FINAL_ANSWER_S = 15.0
_ALLOW = "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, UPDATE"


class CallFailed(ConnectionError):
    """The far end refused a call; `status` is the SIP status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status


@dataclass
class Message:
    """A SIP request or response."""

    start: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: str = ""

    @classmethod
    def parse(cls, data: bytes) -> Message:
        head, _, body = data.decode(errors="replace").partition("\r\n\r\n")
        start, *lines = head.split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return cls(start, [(name.strip(), value.strip()) for name, _, value in pairs], body)

    def render(self) -> bytes:
        lines = [self.start, *(f"{name}: {value}" for name, value in self.headers)]
        lines.append(f"Content-Length: {len(self.body.encode())}")
        return ("\r\n".join(lines) + "\r\n\r\n" + self.body).encode()

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str, default: str = "") -> str:
        return next(iter(self.all(name)), default)

    @property
    def is_response(self) -> bool:
        return self.start.startswith("SIP/2.0 ")

    @property
    def status(self) -> int:
        return int(self.start.split()[1])

    @property
    def method(self) -> str:
        return self.get("CSeq").split()[-1] if self.is_response else self.start.split()[0]


def render_sdp(port: int, codecs: Sequence[Codec], direction: str, version: int) -> str:
    """An offer or an answer with one audio stream and telephone events."""
    payloads = " ".join(str(codec.payload_type) for codec in codecs)
    lines = [
        "v=0",
        f"o=tests 1 {version} IN IP4 127.0.0.1",
        "s=tests",
        "c=IN IP4 127.0.0.1",
        "t=0 0",
        f"m=audio {port} RTP/AVP {payloads} {EVENT_PAYLOAD}",
        *(f"a=rtpmap:{codec.rtpmap}" for codec in codecs),
        f"a=rtpmap:{EVENT_PAYLOAD} telephone-event/{codecs[0].event_rate_hz}",
        f"a=fmtp:{EVENT_PAYLOAD} 0-16",
        "a=ptime:20",
        f"a={direction}",
    ]
    return "\r\n".join(lines) + "\r\n"


def parse_sdp(body: str) -> tuple[str, int, list[int]]:
    """Where to send audio to, and the payload types in order of preference."""
    address = re.search(r"^c=IN IP4 (\S+)", body, re.M)
    media = re.search(r"^m=audio (\d+) \S+ ([\d ]+)", body, re.M)
    if address is None or media is None:
        raise ValueError(f"no audio in this SDP:\n{body}")
    return address[1], int(media[1]), [int(part) for part in media[2].split()]


class Call:
    """One dialog. `uuid` is the Call-ID, which a switch may use as the channel's uuid."""

    def __init__(self, agent: SipAgent, call_id: str, codecs: Sequence[Codec], local: str) -> None:
        self.uuid = call_id
        self.rtp = RtpSession(codecs[0])
        self.answered: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        self.end_reason = ""
        self.direction_offered = "sendrecv"
        self._agent = agent
        self._codecs = list(codecs)
        self._local = local
        self._remote = ""
        self._target = ""
        self._cseq = random.randint(1, 1000)
        self._version = 0

    @property
    def is_up(self) -> bool:
        return self.answered.done() and not self.ended.is_set()

    async def hangup(self) -> None:
        """Hangs up and waits for the confirmation; nothing happens if the call has ended."""
        if self.ended.is_set():
            return
        if self.answered.done() and not self.answered.exception():
            with contextlib.suppress(CallFailed):
                await self._request("BYE")
        self._end("hung up here")

    async def reinvite(self, direction: str = "sendrecv", codec: Codec | None = None) -> Message:
        """Changes the direction of the media (``sendonly`` is hold) or the codec."""
        if codec is not None:
            self._codecs = [codec]
        self._version += 1
        sdp = render_sdp(self.rtp.port, self._codecs, direction, self._version)
        answer = await self._request("INVITE", body=sdp)
        if codec is not None:
            self.rtp.use(codec)
        self._adopt_sdp(answer.body)
        return answer

    async def info_digit(self, digit: str, duration_ms: int) -> None:
        """Presses a key as a telephone does that tells of it by SIP INFO."""
        body = f"Signal={digit}\r\nDuration={duration_ms}\r\n"
        await self._request("INFO", body=body, kind="application/dtmf-relay")

    async def wait_ended(self, timeout_s: float = 10.0) -> None:
        async with within(timeout_s, lambda: f"the end of the call {self.uuid}"):
            await self.ended.wait()

    async def start(self, target: str, remote: str, headers: Mapping[str, str]) -> None:
        """Sends the INVITE and waits for the answer. Raises CallFailed if it is refused."""
        self._target, self._remote = target, remote
        sdp = render_sdp(self.rtp.port, self._codecs, "sendrecv", self._version)
        try:
            answer = await self._request("INVITE", body=sdp, headers=headers)
        except CallFailed as error:
            self._end(str(error))
            raise
        if not self.answered.done():
            self._adopt_sdp(answer.body)
            self.answered.set_result(answer)

    async def accept(self, invite: Message) -> None:
        """Answers a call that came in."""
        self._remote, self._target = invite.get("From"), _contact_uri(invite)
        self._adopt_sdp(invite.body)
        self.answered.set_result(invite)
        self._agent.respond(invite, 200, "OK", self._local, self._answer_sdp())

    def handle(self, request: Message) -> None:
        """A request within the dialog."""
        if request.method == "ACK":
            return
        if request.method == "BYE":
            self._agent.respond(request, 200, "OK")
            self._end(request.get("Reason", "hung up there"))
        elif request.method == "INVITE":
            offered = re.search(r"^a=(sendrecv|sendonly|recvonly|inactive)", request.body, re.M)
            self.direction_offered = offered[1] if offered else "sendrecv"
            self._version += 1
            self._adopt_sdp(request.body)
            self._agent.respond(request, 200, "OK", self._local, self._answer_sdp())
        else:
            self._agent.respond(request, 200, "OK")

    def _answer_sdp(self) -> str:
        return render_sdp(self.rtp.port, [self.rtp.codec], "sendrecv", self._version)

    async def _request(
        self,
        method: str,
        body: str = "",
        headers: Mapping[str, str] | None = None,
        kind: str = "application/sdp",
    ) -> Message:
        self._cseq += 1
        message = self._message(method, self._cseq, body, headers or {}, kind)
        try:
            response = await self._agent.transact(message)
        except TimeoutError:
            if method == "INVITE":
                cancel = self._message("CANCEL", self._cseq, "", {})
                cancel.headers[0] = ("Via", message.get("Via"))
                self._agent.send(cancel)
            raise CallFailed(408, f"no final answer to {method}") from None
        if method == "INVITE":
            self._remote = response.get("To", self._remote)
            if response.status < 300:
                self._target = _contact_uri(response) or self._target
                self._agent.send(self._message("ACK", self._cseq, "", {}))
            else:
                # The ACK of a refusal belongs to the same transaction: same Via, no new branch.
                refused = self._message("ACK", self._cseq, "", {})
                refused.headers[0] = ("Via", message.get("Via"))
                self._agent.send(refused)
        if response.status >= 300:
            raise CallFailed(response.status, response.start)
        return response

    def _message(
        self,
        method: str,
        cseq: int,
        body: str,
        headers: Mapping[str, str],
        kind: str = "application/sdp",
    ) -> Message:
        fields = [
            ("Via", self._agent.via()),
            ("Max-Forwards", "70"),
            ("From", self._local),
            ("To", self._remote),
            ("Call-ID", self.uuid),
            ("CSeq", f"{cseq} {method}"),
            ("Contact", self._agent.contact),
            ("Allow", _ALLOW),
            *headers.items(),
        ]
        if body:
            fields.append(("Content-Type", kind))
        return Message(f"{method} {self._target} SIP/2.0", fields, body)

    def _adopt_sdp(self, body: str) -> None:
        if not body:
            return
        host, port, payloads = parse_sdp(body)
        chosen = [c for p in payloads for c in self._codecs if c.payload_type == p]
        if chosen and chosen[0] is not self.rtp.codec:
            self.rtp.use(chosen[0])
        self.rtp.start(host, port)

    def _end(self, reason: str) -> None:
        if not self.ended.is_set():
            self.end_reason = reason
            if not self.answered.done():
                self.answered.cancel()
            self.ended.set()


class SipAgent(asyncio.DatagramProtocol):
    """A user agent on a loopback port. Use as an async context manager."""

    def __init__(self, user: str = "1000", codecs: Sequence[Codec] = (PCMU,)) -> None:
        self.user = user
        self.codecs = codecs
        self.incoming: asyncio.Queue[Call] = asyncio.Queue()
        self.on_incoming: Callable[[Call], Awaitable[None]] | None = None
        self.port = 0
        self._calls: dict[str, Call] = {}
        self._pending: dict[str, asyncio.Queue[Message]] = {}
        self._answers: dict[str, bytes] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> SipAgent:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", 0)
        )
        self.port = int(self._transport.get_extra_info("sockname")[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        calls = list(self._calls.values())
        await asyncio.gather(*(call.hangup() for call in calls))
        for call in calls:
            await call.rtp.close()
        self._transport.close()

    @property
    def contact(self) -> str:
        return f"<sip:{self.user}@127.0.0.1:{self.port}>"

    def via(self) -> str:
        return f"SIP/2.0/UDP 127.0.0.1:{self.port};rport;branch=z9hG4bK{uuid.uuid4().hex}"

    async def call(
        self,
        port: int,
        extension: str,
        *,
        headers: Mapping[str, str] | None = None,
        display_name: str = "Tests",
        codec: Codec | None = None,
        before_answer: Callable[[Call], None] | None = None,
    ) -> Call:
        """Calls an extension of the switch at a loopback port and waits for the answer.

        `before_answer` sees the call before it is answered, for example to queue audio that must be
        sent from the very first packet on.
        """
        call_id = str(uuid.uuid4())
        local = f'"{display_name}" <sip:{self.user}@127.0.0.1>;tag={uuid.uuid4().hex[:8]}'
        call = Call(self, call_id, [codec] if codec else self.codecs, local)
        self._calls[call_id] = call
        if before_answer is not None:
            before_answer(call)
        target = f"sip:{extension}@127.0.0.1:{port}"
        self._remote = ("127.0.0.1", port)
        await call.start(target, f"<{target}>", headers or {})
        return call

    async def transact(self, request: Message) -> Message:
        """Sends a request until it is answered and returns the final response."""
        branch = _branch(request)
        queue = self._pending[branch] = asyncio.Queue()
        wait_s = _T1_S
        provisional = False
        try:
            async with asyncio.timeout(_FINAL_ANSWER_S):
                while True:
                    if not provisional:
                        self.send(request)
                    try:
                        async with asyncio.timeout(None if provisional else wait_s):
                            response = await queue.get()
                    except TimeoutError:
                        wait_s = min(2 * wait_s, 4.0)
                        continue
                    if response.status >= 200:
                        return response
                    provisional = True
        finally:
            del self._pending[branch]

    def send(self, message: Message) -> None:
        self._transport.sendto(message.render(), self._remote)

    def respond(
        self, request: Message, status: int, reason: str, local: str = "", sdp: str = ""
    ) -> None:
        """Answers a request; repeated requests get the same answer again."""
        fields = [("Via", value) for value in request.all("Via")]
        fields += [("Record-Route", value) for value in request.all("Record-Route")]
        fields += [(name, request.get(name)) for name in ("From", "Call-ID", "CSeq")]
        fields += [("To", local or request.get("To")), ("Contact", self.contact)]
        fields.append(("Allow", _ALLOW))
        if sdp:
            fields.append(("Content-Type", "application/sdp"))
        data = Message(f"SIP/2.0 {status} {reason}", fields, sdp).render()
        self._answers[_branch(request)] = data
        self._transport.sendto(data, self._remote)

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        message = Message.parse(data)
        if message.is_response:
            if queue := self._pending.get(_branch(message)):
                queue.put_nowait(message)
            return
        self._remote = ("127.0.0.1", addr[1])
        if message.method != "ACK" and (known := self._answers.get(_branch(message))):
            self._transport.sendto(known, self._remote)
        elif call := self._calls.get(message.get("Call-ID")):
            call.handle(message)
        elif message.method == "INVITE":
            self._ring(message)
        elif message.method == "OPTIONS":
            self.respond(message, 200, "OK")
        elif message.method != "ACK":
            self.respond(message, 481, "Call Does Not Exist")

    def _ring(self, invite: Message) -> None:
        _, _, payloads = parse_sdp(invite.body)
        offered = [codec for codec in CODECS if codec.payload_type in payloads]
        chosen = [codec for codec in self.codecs if codec in offered] or [PCMU]
        local = f"{invite.get('To')};tag={uuid.uuid4().hex[:8]}"
        call = Call(self, invite.get("Call-ID"), chosen, local)
        self._calls[call.uuid] = call
        task = asyncio.create_task(self._answer(call, invite))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, call: Call, invite: Message) -> None:
        if self.on_incoming is not None:
            await self.on_incoming(call)
        await call.accept(invite)
        self.incoming.put_nowait(call)


def _branch(message: Message) -> str:
    found = re.search(r"branch=([^;,\s]+)", message.get("Via"))
    return f"{found[1] if found else ''} {message.method}"


def _contact_uri(message: Message) -> str:
    found = re.search(r"<([^>]+)>", message.get("Contact"))
    return found[1] if found else ""
