"""The faults of a run: what each of them does, and how all of them end.

Each says whether it has struck: a worker can be killed only where there is one. The first node does not die, as the cluster ends with it
and its owner (`kill-owner` is another plan); the head does where it has a process of its own.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from actorflow._core.node.head_link import RETRY_FIRST_S
from actorflow._core.node.tenancy import GIVEN_UP
from actorflow._core.policy.liveness import LEASE_S
from tests.sim.whole.plan import Args, Step
from tests.sim.whole.verbs import Room

if TYPE_CHECKING:
    from actorflow.testing import Host
    from actorflow.testing.sim_node import SimNode
    from tests.sim.whole.run import Whole

T = TypeVar("T")
Strike = Callable[["Whole", Any], bool]


class Fault(NamedTuple):
    """`needs`: "" or what the cluster must have: "nodes" (more than one), "tcp" (between machines), "guest" (a driver may die)."""

    name: str
    weight: int
    needs: str
    draw: Callable[[random.Random, Room], Args]
    strike: Strike


FAULTS: dict[str, Fault] = {}


def fault(name: str, weight: int, draw: Callable[[random.Random, Room], Args], needs: str = "") -> Callable[[Strike], Strike]:
    """Enter a fault."""

    def enter(strike: Strike) -> Strike:
        FAULTS[name] = Fault(name, weight, needs, draw, strike)
        return strike

    return enter


def _pick(rng: random.Random) -> float:
    return round(rng.random(), 3)


def _picked(many: Sequence[T], pick: float) -> T | None:
    return many[min(int(pick * len(many)), len(many) - 1)] if many else None


# -- processes


@fault("kill-worker", 10, lambda rng, room: {"pick": _pick(rng)})
def kill_worker(whole: Whole, a: Any) -> bool:
    victim = _picked(whole.cluster.workers(), a["pick"])
    if victim is not None:
        whole.world.kill(victim)
    return victim is not None


@fault("fail-spawn", 2, lambda rng, room: {"node": rng.randrange(room.nodes)})
def fail_spawn(whole: Whole, a: Any) -> bool:
    """Once for each node: three in a row are an error that is told."""
    node = whole.node(a["node"])
    if node is None or node.name in whole.spawns_failed:
        return False
    whole.spawns_failed.add(node.name)
    node.processes.fail_next_spawn()
    return True


@fault("kill-driver", 3, lambda rng, room: {"pick": _pick(rng)}, "guest")
def kill_driver(whole: Whole, a: Any) -> bool:
    living = [driver for driver in whole.drivers if driver.host.alive and not driver.ended]
    victim = _picked(living, a["pick"])
    if victim is not None:
        whole.world.kill(victim.host)
        whole.history.caller_died(victim.host.name)
    return victim is not None


@fault("kill-owner", 0, lambda rng, room: {})
def kill_owner(whole: Whole, a: Any) -> bool:
    """The driver that the cluster belongs to: all is over with it."""
    whole.lenient = True
    whole.world.kill(whole.owner.host)
    return True


@fault("kill-head", 0, lambda rng, room: {"down": rng.randrange(2)})
def kill_head(whole: Whole, a: Any) -> bool:
    """It comes back. `down`: its machine loses what is not on the disk."""
    head = whole.cluster.sim_head
    if head is None or not head.host.alive or not whole.cluster.node_host.alive:
        return False
    head.kill(machine_down=bool(a["down"]))
    return True


@fault("pause-worker", 3, lambda rng, room: {"pick": _pick(rng), "seconds": round(0.01 + rng.random() * 3, 3)})
def pause_worker(whole: Whole, a: Any) -> bool:
    return _pause(whole, [host] if (host := _picked(whole.cluster.workers(), a["pick"])) is not None else [], a["seconds"])


@fault("pause-node", 2, lambda rng, room: {"node": rng.randrange(room.nodes), "seconds": round(0.01 + rng.random() * 3, 3)})
def pause_node(whole: Whole, a: Any) -> bool:
    """Its process alone, and not for so long that it would be given up while its workers act."""
    node = whole.node(a["node"])
    return _pause(whole, [node.host] if node is not None else [], a["seconds"])


@fault(
    "pause-machine", 2, lambda rng, room: {"node": 1 + rng.randrange(room.nodes - 1), "seconds": round(0.5 + rng.random() * 12, 3)}, "tcp"
)
def pause_machine(whole: Whole, a: Any) -> bool:
    """With all that runs there, and perhaps for longer than its lease."""
    node = whole.node(a["node"])
    here = [host for host in whole.world.living() if node is not None and host.machine == node.host.machine]
    return _pause(whole, here, a["seconds"])


def _pause(whole: Whole, hosts: list[Host], seconds: float) -> bool:
    until = whole.world.now + seconds

    def go_on(host: Host) -> None:
        if whole.still_until.get(host, 0.0) <= whole.world.now:
            host.unpause()

    still = [host for host in hosts if host.alive]
    for host in still:
        # A machine that stands still does not go on because one of its processes would.
        whole.still_until[host] = max(until, whole.still_until.get(host, 0.0))
        if not host.paused:
            host.pause()
        if whole.still_until[host] - whole.world.now >= LEASE_S:
            whole.slept.add(host)
        whole.world.note(host.name, f"is paused for {seconds} s")
        whole.world.at_time(until, partial(go_on, host))
    return bool(still)


# -- machines


@fault("kill-node", 5, lambda rng, room: {"node": 1 + rng.randrange(room.nodes - 1), "back": round(rng.random() * 3, 3)}, "nodes")
def kill_node(whole: Whole, a: Any) -> bool:
    """The machine is gone; after a while another one takes its place."""
    node = whole.node(a["node"])
    if node is None:
        return False
    for host in _on(whole, node):
        whole.world.kill(host)
    whole.world.at_time(whole.world.now + a["back"], lambda: whole.replace(a["node"]))
    return True


@fault("stop-node", 2, lambda rng, room: {"node": 1 + rng.randrange(room.nodes - 1), "back": round(rng.random() * 3, 3)}, "nodes")
def stop_node(whole: Whole, a: Any) -> bool:
    """It ends in order, as by `actorflow stop`; after a while another one takes its place."""
    node = whole.node(a["node"])
    if node is None:
        return False
    node.end("it is stopped")

    def ended(host: Host) -> None:
        whole.world.at_time(whole.world.now + a["back"], lambda: whole.replace(a["node"]))

    node.host.on_end.append(ended)
    return True


@fault("drain-node", 0, lambda rng, room: {})
def drain_node(whole: Whole, a: Any) -> bool:
    """It is to leave in order, within so many seconds; after a while another one takes its place."""
    node = whole.node(a["node"])
    if node is None or node.node is None:
        return False
    core = node.node
    node.host.loop.call_soon_threadsafe(lambda: core.drain(a["seconds"], "it is drained"))

    def ended(host: Host) -> None:
        whole.world.at_time(whole.world.now + a["back"], lambda: whole.replace(a["node"]))

    node.host.on_end.append(ended)
    return True


def _on(whole: Whole, node: SimNode) -> list[Host]:
    return [node.host, *(host for host in node.processes.hosts() if host.alive)]


@fault("cut", 3, lambda rng, room: {"node": 1 + rng.randrange(room.nodes - 1), "seconds": round(0.1 + rng.random() ** 2 * 14, 3)}, "tcp")
def cut(whole: Whole, a: Any) -> bool:
    """A machine hears nobody and is heard by nobody."""
    node = whole.node(a["node"])
    if node is None:
        return False
    here = node.host.machine
    others = sorted({host.machine for host in whole.world.hosts.values()} - {here})
    whole.world.fabric.partition([here], others)
    whole.world.at_time(whole.world.now + a["seconds"], whole.world.fabric.heal)
    return True


@fault("clock", 2, lambda rng, room: {"node": rng.randrange(room.nodes), "seconds": rng.choice([-30, -1, 1, 30])})
def clock(whole: Whole, a: Any) -> bool:
    """Somebody sets the wall clock of a machine."""
    node = whole.node(a["node"])
    if node is None:
        return False
    for host in whole.world.living():
        if host.machine == node.host.machine:
            host.wall_jump_s += a["seconds"]
    whole.world.note(node.host.machine, f"its wall clock is set by {a['seconds']} s")
    return True


# -- links


@fault("reset", 6, lambda rng, room: {"pick": _pick(rng), "side": rng.randrange(2)}, "reset")
def reset(whole: Whole, a: Any) -> bool:
    up = [ends for ends in whole.world.fabric.connections() if not (ends[0].closed or ends[1].closed)]
    ends = _picked(up, a["pick"])
    if ends is not None:
        whole.world.fabric.reset(ends[a["side"]])
    return ends is not None


@fault("reset-host", 3, lambda rng, room: {"pick": _pick(rng)}, "reset")
def reset_host(whole: Whole, a: Any) -> bool:
    """All connections of one process at one time."""
    host = _picked(whole.world.living(), a["pick"])
    up = [ends for ends in whole.world.fabric.connections() if host in (ends[0].host, ends[1].host)]
    for ends in up:
        if not (ends[0].closed or ends[1].closed):
            whole.world.fabric.reset(ends[0])
    return bool(up)


@fault("lose-head", 3, lambda rng, room: {"node": rng.randrange(room.nodes)})
def lose_head(whole: Whole, a: Any) -> bool:
    """A node gives up its connection to the head: to the head it is lost. It is refused when it comes again, and begins anew as another."""
    node = whole.node(a["node"]) if a["node"] else None
    if node is None:
        return False
    core: Any = node.node
    whole.node_gave_head_up = whole.objects_lost = True  # To the other nodes its owners are gone.
    node.host.loop.call_soon_threadsafe(lambda: core._head._peer.close(abort=True))
    whole.world.at_time(whole.world.now + RETRY_FIRST_S, lambda: node.host.alive and node.end(GIVEN_UP))
    return True


@fault("slow", 4, lambda rng, room: {"pick": _pick(rng), "by": round(rng.random() ** 2, 3), "seconds": round(rng.random() * 3, 3)})
def slow(whole: Whole, a: Any) -> bool:
    ends = _picked(whole.world.fabric.connections(), a["pick"])
    if ends is None:
        return False
    one, other, fabric = ends[0].host, ends[1].host, whole.world.fabric
    fabric.delay(one, other, a["by"])
    whole.world.at_time(whole.world.now + a["seconds"], lambda: fabric.delay(one, other, 0.0))
    return True


# -- disks and memory


@fault("fail-writes", 2, lambda rng, room: {"node": rng.randrange(room.nodes), "count": rng.randrange(1, 4)})
def fail_writes(whole: Whole, a: Any) -> bool:
    node = whole.node(a["node"])
    if node is not None:
        node.spill.write_failures_planned += a["count"]
    return node is not None


@fault("fail-reads", 2, lambda rng, room: {"node": rng.randrange(room.nodes), "count": rng.randrange(1, 3)})
def fail_reads(whole: Whole, a: Any) -> bool:
    node = whole.node(a["node"])
    if node is not None:
        node.spill.fail_reads(a["count"])
        whole.objects_lost = True
    return node is not None


@fault("lose-files", 2, lambda rng, room: {"node": rng.randrange(room.nodes)})
def lose_files(whole: Whole, a: Any) -> bool:
    """Somebody deletes what is on the disk: what a call has made is made again, and what was put is lost."""
    node = whole.node(a["node"])
    if node is not None:
        node.spill.lose_files()
        whole.objects_lost = True
    return node is not None


@fault("full-disk", 2, lambda rng, room: {"node": rng.randrange(room.nodes), "seconds": round(0.2 + rng.random() * 3, 3)})
def full_disk(whole: Whole, a: Any) -> bool:
    node = whole.node(a["node"])
    if node is None:
        return False
    node.spill.capacity_bytes = 0
    whole.world.at_time(whole.world.now + a["seconds"], lambda: _empty(node))
    return True


def _empty(node: SimNode) -> None:
    node.spill.capacity_bytes = None


@fault("short-memory", 2, lambda rng, room: {"node": rng.randrange(room.nodes), "seconds": round(0.3 + rng.random() * 2, 3)})
def short_memory(whole: Whole, a: Any) -> bool:
    """Somebody else on the machine takes all of it for a while: the store makes room, then workers end."""
    node = whole.node(a["node"])
    if node is None:
        return False
    node.memory.short()
    whole.world.at_time(whole.world.now + a["seconds"], node.memory.enough)
    return True


# -- all of them


class Strikes:
    """The faults of a plan in one run."""

    def __init__(self, whole: Whole, faults: Sequence[Step]) -> None:
        self.made: Counter[str] = Counter()
        self._whole = whole
        self._faults = faults

    def plan(self, began_at: float) -> None:
        """Have each strike at its moment."""
        for step in self._faults:
            self._whole.world.at_time(began_at + step.at, lambda step=step: self._strike(step))  # type: ignore[misc]

    def _strike(self, step: Step) -> None:
        self._whole.world.note("fault", str(step))
        if FAULTS[step.verb].strike(self._whole, step.args):
            self.made[step.verb] += 1

    def heal(self) -> None:
        """All that can be mended is: what is dead stays so, and has somebody in its place."""
        whole = self._whole
        whole.world.fabric.heal()
        for host in whole.world.living():
            host.unpause()
        for number in range(len(whole.places)):
            whole.replace(number)
        for node in whole.cluster.nodes:
            _empty(node)
            node.memory.enough()
            node.spill.write_failures_planned = node.spill.read_failures_planned = 0
            node.processes.heal()
