"""What runs on the simulated switch, for operators and workers: in mod_listen's words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pylisten import __version__, shm
from pylisten.simulator.listen import Listen

if TYPE_CHECKING:
    from pylisten.simulator.switch import SimulatedSwitch

__all__ = ["compact", "report_list", "report_status", "report_workers"]

TICKS_PER_MS: Final = shm.TICKS_HZ // 1000

REASONS: Final = (
    "disconnect",
    "closed",
    "finish-key",
    "max-length",
    "silence",
    "stopped",
    "break",
    "hangup",
    "transfer",
    "connect-failed",
    "bad-request",
    "no-worker",
    "worker-lost",
    "unsupported-media",
)


def compact(document: Mapping[str, object]) -> str:
    """JSON on one line, with the newline that ends a reply."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"


def report_list(switch: SimulatedSwitch, uuid: str | None, *, as_json: bool) -> str:
    """The live listens of a channel, or (``uuid`` None) of all."""
    listens = [each for each in switch.live() if uuid in (None, each.call.uuid)]
    if as_json:
        return compact({"listens": [_listen(switch, each) for each in listens]})
    head = f"+OK {len(listens)} listen{'' if len(listens) == 1 else 's'}\n"
    return head + "".join(_listen_line(switch, each) for each in listens)


def report_workers(switch: SimulatedSwitch, *, as_json: bool) -> str:
    """The workers that are attached."""
    workers = [
        {
            "name": worker.name,
            "index": worker.index,
            "pid": worker.pid,
            "listens": switch.load(worker),
            "state": "draining" if worker.draining else "attached",
        }
        for worker in switch.workers
    ]
    if as_json:
        return compact({"workers": workers})
    head = f"+OK {len(workers)} worker{'' if len(workers) == 1 else 's'}\n"
    return head + "".join(
        f"{each['name']}  {each['state']}  pid {each['pid']}  listens {each['listens']}\n"
        for each in workers
    )


def report_status(switch: SimulatedSwitch, *, as_json: bool) -> str:
    """An overview."""
    total = switch.counted()
    if as_json:
        return compact(_status(switch, total))
    channels = len({listen.call.uuid for listen in switch.live()})
    return (
        f"+OK pylisten simulator {__version__}\n"
        f"handoff-socket  {switch.handoff_socket}\n"
        f"workers         {len(switch.workers)}\n"
        f"listens         {len(switch.live())} live, at most {switch.max_listens},"
        f" {channels} channels\n"
        f"since load      {switch.started} started, {switch.ended.total()} ended,"
        f" {switch.refused} refused, {switch.adopted} adopted\n"
        f"dropped         {total['dropped_near']} near and {total['dropped_far']} far samples,"
        f" {total['digits_dropped']} digits\n"
    )


def _status(switch: SimulatedSwitch, total: Mapping[str, int]) -> dict[str, object]:
    live = switch.live()
    return {
        "version": __version__,
        "abi": f"{shm.ABI_MAJOR}.{shm.ABI_MINOR}",
        "handoff_socket": str(switch.handoff_socket),
        "max_listens": switch.max_listens,
        "ring_ms": switch.arena.ring_ms,
        "adopt_timeout_ms": switch.adopt_timeout_ms,
        "idle_writer": True,
        "live": len(live),
        "workers": len(switch.workers),
        "channels": len({listen.call.uuid for listen in live}),
        "idle_writers": 0,
        "started": switch.started,
        "ended": switch.ended.total(),
        "refused": switch.refused,
        "adopted": switch.adopted,
        "reasons": {reason: switch.ended[reason] for reason in REASONS},
        "dropped": {
            "near_samples": total["dropped_near"],
            "far_samples": total["dropped_far"],
            "digits": total["digits_dropped"],
            "corrupt_records": total["corrupt"],
        },
        "audio": _counters(total),
        "slots": {
            "free": switch.max_listens - len(switch.listens),
            "live": len(live),
            "ended": len(switch.listens) - len(live),
        },
    }


def _counters(counters: Mapping[str, int]) -> dict[str, object]:
    """Samples, unless the name says ms."""

    def pair(name: str) -> dict[str, int]:
        return {"near": counters[f"{name}_near"], "far": counters[f"{name}_far"]}

    return {
        "captured": pair("captured"),
        "dropped": pair("dropped"),
        "trimmed": pair("trimmed"),
        "late": pair("late"),
        "filled": counters["filled"],
        "sent": counters["sent"],
        "played_ms": counters["played_ticks"] // TICKS_PER_MS,
        "flushed_ms": counters["flushed_ticks"] // TICKS_PER_MS,
        "digits_dropped": counters["digits_dropped"],
        "corrupt": counters["corrupt"],
    }


def _state(listen: Listen) -> str:
    if listen.worker is None:
        return "orphan"
    return "live" if listen.accepted else "starting"


def _age_ms(switch: SimulatedSwitch, listen: Listen) -> int:
    return (switch.clock.now_ns - listen.start_ns) // 1_000_000


def _listen(switch: SimulatedSwitch, listen: Listen) -> dict[str, object]:
    return {
        "id": listen.id,
        "uuid": listen.call.uuid,
        "name": listen.name,
        "worker": listen.worker_name,
        "slot": listen.slot,
        "generation": listen.generation,
        "state": _state(listen),
        "sample_rate": listen.request.rate_hz,
        "mix_type": listen.request.mix,
        "duration_ms": _age_ms(switch, listen),
        "counters": _counters(switch.arena.counters(listen.slot)),
    }


def _listen_line(switch: SimulatedSwitch, listen: Listen) -> str:
    return (
        f"{listen.id}  channel {listen.call.uuid}  name {listen.name}"
        f"  worker {listen.worker_name or '-'}  {_state(listen)}  {listen.request.rate_hz} Hz"
        f" {listen.request.mix}  {_age_ms(switch, listen) // 1000} s\n"
    )
