"""A switch without telephones: everything a worker sees of FreeSWITCH with mod_listen.

It owns an arena, hands it to workers over the handoff socket, speaks the part of the event socket
that workers and operators use, and runs calls from audio files. Workers cannot tell it from the
real one; ``docs/reference/contract.md`` describes what both keep.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pylisten import shm
from pylisten.simulator.call import Line, SimulatedCall, Tap
from pylisten.simulator.clock import MediaClock
from pylisten.simulator.commands import Commands
from pylisten.simulator.esl import EslServer
from pylisten.simulator.handoff import WORKERS_MAX, HandoffServer, Worker
from pylisten.simulator.listen import Listen
from pylisten.simulator.report import TICKS_PER_MS
from pylisten.simulator.request import MIXES, Refusal, Request, parse_request

__all__ = ["EventWatcher", "SimulatedSwitch"]

FAILURES: Final = frozenset(
    {"connect-failed", "bad-request", "no-worker", "worker-lost", "unsupported-media"}
)
ACCEPT_TIMEOUT_S: Final = 2.0
ENDED_TIMEOUT_S: Final = 30.0
UNREAD_TIMEOUT_S: Final = 2.0
RECLAIM_EVERY_S: Final = 0.05
# What would break a line has no place in an event.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

EventWatcher = Callable[[str, Mapping[str, str]], None]


class SimulatedSwitch:
    """The other side of the contract, in this process. An async context manager.

    ``handoff_socket`` is made in a private directory, and ``esl_port`` chosen by the system, unless
    they are given. ``max_listens`` is also the number of slots; ``ring_ms`` what a ring holds.
    """

    def __init__(
        self,
        *,
        handoff_socket: Path | None = None,
        esl_port: int = 0,
        esl_password: str = "simulator",
        max_listens: int = 64,
        ring_ms: int = 10_000,
        adopt_timeout_ms: int = 10_000,
        allowed_uids: frozenset[int] | None = None,
        max_workers: int = WORKERS_MAX,
    ) -> None:
        self._directory = None if handoff_socket else tempfile.mkdtemp(prefix="pylisten-")
        self.handoff_socket = handoff_socket or Path(str(self._directory), "listen.sock")
        self.esl_password = esl_password
        self.max_listens = max_listens
        self.adopt_timeout_ms = adopt_timeout_ms
        self.clock = MediaClock()
        self.arena = shm.Arena.create(max_listens, ring_ms)
        self.calls: dict[str, SimulatedCall] = {}
        self.listens: dict[str, Listen] = {}
        self.started = 0
        self.refused = 0
        self.adopted = 0
        self.ended: Counter[str] = Counter()
        self._counted: Counter[str] = Counter()
        self._next_slot = 0
        self._esl_port = esl_port
        self._watchers: list[EventWatcher] = []
        self._handoff = HandoffServer(
            self.handoff_socket,
            self.arena.fd,
            on_attach=self._worker_attached,
            on_lost=self._worker_lost,
            allowed_uids=allowed_uids,
            workers_max=max_workers,
        )
        self._esl = EslServer(esl_password, Commands(self).table())
        self._janitor: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- life -------------------------------------------------------------------------------------

    @property
    def esl_port(self) -> int:
        """The port of the event socket on 127.0.0.1."""
        return self._esl.port

    async def start(self) -> None:
        """Opens both sockets and starts the media clock; raises OSError if one is taken."""
        self._loop = asyncio.get_running_loop()
        await self._handoff.start()
        await self._esl.start(port=self._esl_port)
        self._janitor = asyncio.create_task(self._reclaim_released())
        self.clock.start()

    async def close(self) -> None:
        """Hangs up all calls, disconnects everybody and gives the memory back."""
        for call in list(self.calls.values()):
            self.hang_up(call)
        self.clock.stop()
        if self._janitor is not None:
            self._janitor.cancel()
            await asyncio.gather(self._janitor, return_exceptions=True)
        for listen in self.listens.values():
            _disarm(listen)
        await self._esl.close()
        await self._handoff.close()
        self.arena.close()
        if self._directory:
            shutil.rmtree(self._directory)

    async def __aenter__(self) -> SimulatedSwitch:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    # -- for those who drive it -------------------------------------------------------------------

    def watch(self, watcher: EventWatcher) -> None:
        """Has ``watcher`` called with subclass and headers of every event that is fired."""
        self._watchers.append(watcher)

    async def api(self, command: str) -> str:
        """Runs an API command as an operator at the console would; returns the reply."""
        return await self._esl.run_api(command)

    def add(self, call: SimulatedCall) -> None:
        """Connects a call; it runs from the next tick of the clock on."""
        loop = self._loop
        if loop is None:
            raise RuntimeError("the switch has not been started")

        def at_end() -> None:
            # In the clock's thread: the call ended at this tick, whenever the loop gets to know.
            loop.call_soon_threadsafe(self.hang_up, call, self.clock.now_ns)

        self.calls[call.uuid] = call
        call.connect(Line(self.arena, self.clock, self._ring, at_end))

    def hang_up(self, call: SimulatedCall, at_ns: int | None = None) -> None:
        """Ends a call and its listens; a call that is over already is let be."""
        if self.calls.pop(call.uuid, None) is None:
            return
        for listen in self.live(call):
            self.end(listen, "hangup", at_ns=at_ns)
        call.disconnect()

    # -- listens ----------------------------------------------------------------------------------

    @property
    def workers(self) -> list[Worker]:
        """The workers that are attached."""
        return list(self._handoff.workers.values())

    def live(self, call: SimulatedCall | None = None) -> list[Listen]:
        """The listens that have not ended, of one call or of all."""
        every = self.listens.values()
        return [each for each in every if not each.reason and (call is None or each.call is call)]

    def load(self, worker: Worker) -> int:
        """How many live listens a worker serves."""
        return sum(listen.worker is worker for listen in self.live())

    async def begin(
        self, call: SimulatedCall, request: Request, on_open: Callable[[int], None] | None = None
    ) -> Listen:
        """Starts a listen and waits until its worker accepts it; raises Refusal.

        ``on_open`` is called with the slot as soon as there is one.
        """
        source = await call.prepare(request.rate_hz)
        listen = self._open(call, request)
        tap = Tap(
            listen.slot,
            source,
            request.rate_hz,
            far=request.mix != "mono",
            plays=request.plays,
            hears_itself=request.includes_playback,
        )
        with self.clock.lock:
            call.attach(tap)
        if on_open is not None:
            on_open(listen.slot)
        self.started += 1
        self.fire(
            "listen::start",
            listen,
            {"Listen-Sample-Rate": str(request.rate_hz), "Listen-Mix-Type": request.mix},
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ACCEPT_TIMEOUT_S):
                await listen.decided.wait()
        if listen.reason == "bad-request" and not listen.accepted:
            raise Refusal("BAD_REQUEST", listen.error or "the worker refused it")
        if listen.reason and not listen.accepted:
            why = f"{listen.reason}: {listen.error}" if listen.error else listen.reason
            raise Refusal("GONE", f"it ended at once: {why}")
        return listen

    async def start_listen(self, uuid: str, text: str) -> Listen:
        """Starts a listen as ``uuid_listen <uuid> start <text>`` does; raises Refusal."""
        try:
            request = parse_request(text)
            call = self.calls.get(uuid)
            if call is None:
                raise Refusal("NO_SUCH_CHANNEL", uuid)
            return await self.begin(call, request)
        except Refusal:
            self.refused += 1
            raise

    def end(
        self,
        listen: Listen,
        reason: str,
        details: Mapping[str, Any] | None = None,
        *,
        at_ns: int | None = None,
    ) -> None:
        """Ends a live listen: ends its slot, fires ``listen::end``; ``details`` are a worker's."""
        details = details or {}
        with self.clock.lock:
            listen.end_ns = self.clock.now_ns if at_ns is None else at_ns
            listen.call.detach(listen.slot)
            self.arena.end_slot(listen.slot, listen.end_ns)
            woken = self.arena.bell(listen.slot)
        if woken is not None:
            self._ring(woken)
        listen.reason = reason
        listen.error = str(details.get("error", ""))
        self.ended[reason] += 1
        _disarm(listen)
        listen.decided.set()
        self.fire("listen::end", listen, self._end_headers(listen, details))

    def counted(self) -> Mapping[str, int]:
        """The counters of all listens that there were, added up."""
        total = self._counted.copy()
        for listen in self.listens.values():
            total.update(self.arena.counters(listen.slot))
        return total

    def fire(self, subclass: str, listen: Listen, headers: Mapping[str, str]) -> None:
        """Sends an event to all who subscribed to it, and to the watchers."""
        one_line = {name: _CONTROL.sub(" ", value) for name, value in headers.items()}
        event = self._esl.fire(subclass, {**listen.headers(), **one_line})
        for watcher in self._watchers:
            watcher(subclass, event)

    def drain(self, worker: Worker) -> tuple[int, int]:
        """Gives a worker's listens to others, and no new ones to it; returns moved and left."""
        worker.draining = True
        before = self.load(worker)
        if self._least_loaded() is not None:
            self._pass_on(worker)
        left = self.load(worker)
        return before - left, left

    # -- inside -----------------------------------------------------------------------------------

    def _open(self, call: SimulatedCall, request: Request) -> Listen:
        if self.calls.get(call.uuid) is not call:
            raise Refusal("GONE", "the channel has hung up")
        worker = self._least_loaded()
        if worker is None:
            raise Refusal("NO_WORKER", "no worker is attached: start one with `pylisten serve`")
        slot = self._free_slot()
        if any(listen.name == request.name for listen in self.live(call)):
            raise Refusal(
                "NAME_IN_USE",
                f"a listen named {request.name} runs on this channel: choose another name",
            )
        with self.clock.lock:
            now_ns = self.clock.now_ns
            generation = self.arena.open_slot(
                slot, request.rate_hz, MIXES[request.mix], worker.index, now_ns
            )
        listen = Listen(request, call, slot, generation, worker, now_ns)
        self.listens[listen.id] = listen
        return listen

    def _free_slot(self) -> int:
        """A slot that was freed long ago, or never used."""
        used = {listen.slot for listen in self.listens.values()}
        for n in range(self.max_listens):
            slot = (self._next_slot + n) % self.max_listens
            if slot not in used:
                self._next_slot = (slot + 1) % self.max_listens
                return slot
        raise Refusal("TOO_MANY_LISTENS", f"max_listens is {self.max_listens}: raise it")

    def _end_headers(self, listen: Listen, details: Mapping[str, Any]) -> dict[str, str]:
        counters = self.arena.counters(listen.slot)
        return {
            "Listen-Reason": listen.reason,
            "Listen-Status": "failed" if listen.reason in FAILURES else "ok",
            "Listen-Digits": str(details.get("digits", "")),
            "Listen-Duration-Ms": str((listen.end_ns - listen.start_ns) // 1_000_000),
            "Listen-Error": listen.error,
            "Listen-Bytes-Sent": str(details.get("bytes_sent", 0)),
            "Listen-Gap-Ms": str(details.get("gap_ms", 0)),
            "Listen-Close-Code": str(details.get("close_code", 0)),
            "Listen-Close-Reason": str(details.get("close_reason", "")),
            "Listen-Captured-Near": str(counters["captured_near"]),
            "Listen-Captured-Far": str(counters["captured_far"]),
            "Listen-Dropped-Near": str(counters["dropped_near"]),
            "Listen-Dropped-Far": str(counters["dropped_far"]),
            "Listen-Trimmed-Near": str(counters["trimmed_near"]),
            "Listen-Trimmed-Far": str(counters["trimmed_far"]),
            "Listen-Digits-Dropped": str(counters["digits_dropped"]),
            "Listen-Played-Ms": str(counters["played_ticks"] // TICKS_PER_MS),
            "Listen-Flushed-Ms": str(counters["flushed_ticks"] // TICKS_PER_MS),
            "Listen-Corrupt": str(counters["corrupt"]),
        }

    def _ring(self, index: int) -> None:
        worker = self._handoff.workers.get(index)
        if worker is not None:
            worker.ring()

    def _least_loaded(self) -> Worker | None:
        candidates = [worker for worker in self.workers if not worker.draining]
        return min(candidates, key=self.load, default=None)

    def _worker_attached(self, worker: Worker) -> None:
        for listen in self.live():
            if listen.worker is None:
                self._adopt(listen, worker)

    def _worker_lost(self, worker: Worker) -> None:
        for slot in range(self.max_listens):
            self.arena.evict(slot, worker.index)
        for listen in list(self.listens.values()):
            if listen.worker is worker and listen.reason:
                self._reclaim(listen)
        self._pass_on(worker)

    def _pass_on(self, worker: Worker) -> None:
        for listen in self.live():
            if listen.worker is not worker:
                continue
            listen.lost = worker.name
            other = self._least_loaded()
            if other is not None:
                self._adopt(listen, other)
            else:
                self._orphan(listen)

    def _adopt(self, listen: Listen, worker: Worker) -> None:
        _disarm(listen)
        listen.worker = worker
        listen.adopted = True
        self.adopted += 1
        self.arena.assign(listen.slot, worker.index)
        self.fire("listen::adopt", listen, {"Listen-From": listen.lost})

    def _orphan(self, listen: Listen) -> None:
        """Nobody is left: the listen waits for a worker, for a while."""
        listen.worker = None
        self.arena.assign(listen.slot, shm.NO_WORKER)
        listen.deadline = asyncio.get_running_loop().call_later(
            self.adopt_timeout_ms / 1000, self.end, listen, "worker-lost"
        )

    async def _reclaim_released(self) -> None:
        while True:
            await asyncio.sleep(RECLAIM_EVERY_S)
            now_ns = shm.now_ns()
            for listen in [each for each in self.listens.values() if each.reason]:
                info = self.arena.info(listen.slot)
                unread = info.reader == shm.NO_WORKER
                patience_s = UNREAD_TIMEOUT_S if unread else ENDED_TIMEOUT_S
                overdue = now_ns - listen.end_ns > patience_s * 1e9
                released = info.state == shm.State.RELEASED
                if released or overdue or listen.worker is None:
                    self._reclaim(listen)

    def _reclaim(self, listen: Listen) -> None:
        listen.counters = self.arena.counters(listen.slot)
        self._counted.update(listen.counters)
        self.arena.reclaim(listen.slot)
        del self.listens[listen.id]
        listen.freed.set()


def _disarm(listen: Listen) -> None:
    if listen.deadline is not None:
        listen.deadline.cancel()
        listen.deadline = None
