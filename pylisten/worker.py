"""A worker: attaches to one switch and serves the listens that the switch gives it.

A worker is complete in itself: its own connections to the event socket, its own attachment to the
shared memory, one event loop. It waits for a switch that is not there yet, and comes back when the
switch has gone; what it serves it learns from the switch alone, so nothing is lost with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
from collections.abc import Callable, Coroutine

from pylisten import shm
from pylisten.config import Config
from pylisten.errors import PylistenError, ShmError
from pylisten.esl import Esl, EslError, Event
from pylisten.handoff import Handoff, HandoffError
from pylisten.listen import Listen, ListenGone, Switch
from pylisten.webhook import Webhooks
from pylisten.websocket import tls_context

__all__ = ["Worker"]

log = logging.getLogger(__name__)

EVENTS = ("listen::start", "listen::adopt", "listen::command", "listen::end")

# Between two wake-ups by the doorbell: what comes meanwhile is served in one go, so that wake-ups
# do not grow with calls.
_BATCH_S = 0.010
# Without a wake-up, to fill silence in and to see time-outs: once a frame.
_TICK_S = 0.020
_RETRY_MIN_S = 0.2
_RETRY_MAX_S = 5.0


class Worker:
    """Serves listens until `stop`; `run` is its main task.

    Raises OSError or ssl.SSLError at once if the TLS files of the configuration cannot be used.
    """

    def __init__(self, config: Config, name: str | None = None) -> None:
        self.config = config
        self.name = name or config.name
        self._tls: ssl.SSLContext = tls_context(config.websocket)
        self.hooks = Webhooks(config.webhook, self._tls)
        self._attached = asyncio.Event()
        self._stopping = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._listens: dict[str, Listen] = {}
        self._by_slot: dict[int, Listen] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._handoff: Handoff | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._esl = Esl(
            config.esl.host,
            config.esl.port,
            config.esl.password,
            events=EVENTS,
            filters={"Listen-Worker": self.name},
            on_event=self._on_event,
            on_state=self._on_esl_state,
        )

    # Public.

    @property
    def live(self) -> int:
        """Listens that are being served."""
        return len(self._listens)

    async def ready(self) -> None:
        """Returns when the worker is attached to a switch."""
        await self._attached.wait()

    async def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Serves switch after switch until `stop`; `on_ready` is called at each attachment."""
        await self.hooks.start()
        await self._esl.start()
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            while not self._stopping.is_set():
                serving = asyncio.create_task(self._serve_one_switch(on_ready))
                await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not serving.done():
                    serving.cancel()
                await asyncio.gather(serving, return_exceptions=self._stopping.is_set())
        finally:
            stopping.cancel()
            await self._esl.close()
            await self.hooks.close()

    async def drain(self) -> None:
        """Takes no new listens, gives those that there are to other workers, waits for the rest."""
        if self._attached.is_set():
            try:
                reply = await self._esl.api(f"listen drain {self.name}")
            except EslError as exc:
                reply = f"-ERR {exc}"
            if not reply.startswith("+OK"):
                log.warning("the switch did not drain this worker: %s", reply)
        log.info("draining: %d listens to finish", self.live)
        await self._empty.wait()
        if left := await self.hooks.drain(self.config.webhook.drain_s):
            log.error("%d hooks could not be delivered in time", left)
        self.stop()

    def stop(self) -> None:
        """Ends `run`; the switch gives what is left to another worker."""
        self._stopping.set()

    # One switch, from attachment to loss.

    async def _serve_one_switch(self, on_ready: Callable[[], None] | None) -> None:
        await self._esl.wait_connected()
        handoff = await self._attach()
        lost = asyncio.create_task(handoff.lost())
        self._handoff = handoff
        loop = asyncio.get_running_loop()
        loop.add_reader(handoff.doorbell_fd, self._on_doorbell)
        try:
            await self._reconcile()
            self._attached.set()
            self._on_timer()
            log.info("attached to the switch as %s", self.name)
            if on_ready:
                on_ready()
            await lost
            log.warning("the switch has gone; waiting for it to come back")
        finally:
            self._attached.clear()
            loop.remove_reader(handoff.doorbell_fd)
            if self._timer:
                self._timer.cancel()
            await self._leave(switch_gone=lost.done() and not lost.cancelled())
            lost.cancel()
            self._handoff = None
            handoff.close()

    async def _attach(self) -> Handoff:
        """Tries until the switch hands its memory over; says what is wrong when that changes."""
        pause_s, said = _RETRY_MIN_S, ""
        while True:
            try:
                return await Handoff.connect(self.config.handoff_socket, self.name)
            except (HandoffError, ShmError) as exc:
                if str(exc) != said:
                    log.warning("cannot attach: %s", exc)
                said = str(exc)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _RETRY_MAX_S)

    async def _leave(self, *, switch_gone: bool) -> None:
        for listen in self._listens.values():
            listen.switch_gone = switch_gone
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listens.clear()
        self._by_slot.clear()
        self._empty.set()

    # Learning of listens.

    def _on_event(self, event: Event) -> None:
        listen_id = event.headers.get("Listen-ID", "")
        if event.name in ("listen::start", "listen::adopt"):
            self._begin(listen_id)
        elif listen := self._listens.get(listen_id):
            if event.name == "listen::command":
                command = event.headers.get("Listen-Command", "")
                listen.command(command, event.headers.get("Listen-Argument", ""))
            else:
                listen.switch_ended(event.headers.get("Listen-Reason", ""))

    def _on_esl_state(self, connected: bool) -> None:
        if connected and self._handoff:
            self._spawn(self._reconcile())

    async def _reconcile(self) -> None:
        """Serves what the switch says is ours, whatever events were missed."""
        try:
            reply = await self._esl.api("listen list json")
            listens = json.loads(reply)["listens"]
        except (EslError, ValueError, KeyError, TypeError) as exc:
            log.warning("cannot ask the switch for its listens: %s", exc)
            return
        for listen in listens:
            if listen.get("worker") == self.name:
                self._begin(listen["id"])

    def _begin(self, listen_id: str) -> None:
        if self._handoff and listen_id not in self._listens:
            switch = self._switch(self._handoff)
            listen = Listen(listen_id, switch, self.config, self._tls, self.hooks)
            self._listens[listen_id] = listen
            self._empty.clear()
            self._spawn(self._serve(listen))

    def _switch(self, handoff: Handoff) -> Switch:
        return Switch(handoff.arena, handoff.worker, handoff.kick, self._esl.api)

    async def _serve(self, listen: Listen) -> None:
        try:
            slot = await listen.attach()
            self._by_slot[slot] = listen
            self._on_timer()
            try:
                await listen.run()
            finally:
                if self._by_slot.get(slot) is listen:
                    del self._by_slot[slot]
        except ListenGone as exc:
            log.debug("listen %s ended before it was served: %s", listen.id, exc)
        except PylistenError as exc:
            log.warning("listen %s: %s", listen.id, exc)
        except Exception:
            log.exception("listen %s failed", listen.id)
        finally:
            self._listens.pop(listen.id, None)
            if not self._listens:
                self._empty.set()

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # The pump: one batched drain for all listens.

    def _on_doorbell(self) -> None:
        assert self._handoff
        try:
            os.eventfd_read(self._handoff.doorbell_fd)
        except BlockingIOError:
            return
        self._pump()
        self._after(_BATCH_S)

    def _on_timer(self) -> None:
        assert self._handoff
        self._pump()
        while not self._handoff.arena.arm(self._handoff.worker):
            self._pump()
        if self._by_slot:
            self._after(_TICK_S)

    def _after(self, delay_s: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _pump(self) -> None:
        assert self._handoff
        now_ns = shm.now_ns()
        for item in self._handoff.arena.drain(now_ns):
            if listen := self._by_slot.get(item.slot):
                _guard(listen, listen.item, now_ns, item)
        for listen in list(self._by_slot.values()):
            _guard(listen, listen.tick, now_ns)


def _guard(listen: Listen, work: Callable[..., None], *arguments: object) -> None:
    """One listen's error must not stop the pump, which is everybody's."""
    try:
        work(*arguments)
    except Exception as error:
        listen.fail(error)
