"""Plans drawn from seeds. Pure: the same seed gives the same plan, whatever else is drawn from it."""

from __future__ import annotations

import random

from tests.sim.whole.faults import FAULTS, Fault
from tests.sim.whole.plan import Args, Driver, Plan, Step
from tests.sim.whole.verbs import VERBS, Room

WORK_S = 3.0
"""Operations begin within this time."""
LONG_S = 14.0
"""Within this time a node that is cut off is given up."""
LATENCIES_MS = (0.3, 0.3, 0.3, 3, 20)
"""Of links: as within a machine, a building, a continent. The slower, the more is under way when something breaks."""
DURABLE_SHARE = 0.5
"""Of so many plans the head has a process and a journal of its own, and may die."""
DETACHED_SHARE = 0.3
"""Of so many drivers there are a few detached calls."""
DRAIN_SHARE = 0.25
"""Of so many plans with several nodes one or two of these are drained."""
CHECKED_EVERY = 8
"""Of so many seeds one has its books looked at after each step that changes them."""


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    rng = random.Random(f"plan {seed}")
    nodes = tuple(_node(rng) for _ in range(rng.choice([1, 2, 2, 3, 3, 4])))
    scheme = rng.choice(["unix", "tcp", "tcp"])
    room = Room(len(nodes), int(nodes[0]["cpus"]))
    drivers = tuple(_driver(rng, room, scheme) for _ in range(rng.choice([1, 1, 2, 2, 3])))
    drivers = _with_detached(drivers, random.Random(f"the detached calls of {seed}"), room)
    owner_dies = rng.random() < 0.03
    faults = _faults(rng, room, scheme, drivers)
    if owner_dies:
        faults.append(Step(round(rng.random() * WORK_S, 3), "kill-owner"))
    heads = random.Random(f"the head of {seed}")
    durable = heads.random() < DURABLE_SHARE
    if durable:
        faults += [Step(round(heads.random() * WORK_S, 3), "kill-head", {"down": heads.randrange(2)}) for _ in range(heads.randrange(4))]
    faults += _drains(random.Random(f"the drains of {seed}"), len(nodes))
    faults.sort(key=lambda fault: fault.at)
    heal = LONG_S if any(fault.verb in ("cut", "pause-machine") and float(fault.args["seconds"]) > 6 for fault in faults) else WORK_S + 1.0
    args: Args = {
        "scheme": scheme,
        "durable": int(durable),
        "heal": heal,
        "books": int(seed % CHECKED_EVERY == 0),
        "prestart": rng.randrange(3),
        "latency": rng.choice(LATENCIES_MS),
    }
    return Plan(seed, args, nodes, drivers, tuple(faults))


def _node(rng: random.Random) -> Args:
    return {"cpus": rng.choice([1, 2, 2, 3]), "store": rng.choice(["2MiB", "2MiB", "4MiB", "16MiB"])}


def _driver(rng: random.Random, room: Room, scheme: str) -> Driver:
    outside = int(scheme == "tcp" and rng.random() < 0.25)
    verbs = list(VERBS.values())
    chosen = rng.choices(verbs, [verb.weight for verb in verbs], k=rng.randrange(5, 21))
    steps = [Step(round(rng.random() * WORK_S, 3), verb.name, verb.draw(rng, room)) for verb in chosen]
    steps.sort(key=lambda step: step.at)
    return Driver({"outside": outside, "inline": int(not outside and rng.random() < 0.3)}, tuple(steps))


def _faults(rng: random.Random, room: Room, scheme: str, drivers: tuple[Driver, ...]) -> list[Step]:
    able = [fault for fault in FAULTS.values() if _is_possible(fault, room, scheme, len(drivers))]
    # Many of one kind show other things than a few of each.
    if rng.random() < 0.3:
        able = rng.sample(able, min(2, len(able)))
    chosen = rng.choices(able, [fault.weight or 0.001 for fault in able], k=rng.choice([0, 1, 2, 4, 6, 8, 12]))
    begins = [step.at for driver in drivers for step in driver.steps]
    return [Step(_moment(rng, begins), fault.name, fault.draw(rng, room)) for fault in chosen]


def _with_detached(drivers: tuple[Driver, ...], rng: random.Random, room: Room) -> tuple[Driver, ...]:
    """As `_drains`."""
    found = []
    for driver in drivers:
        calls = [VERBS["detached"].draw(rng, room) for _ in range(rng.choice([1, 1, 2, 4]) if rng.random() < DETACHED_SHARE else 0)]
        steps = [*driver.steps, *(Step(round(rng.random() * WORK_S, 3), "detached", args) for args in calls)]
        found.append(Driver(driver.args, tuple(sorted(steps, key=lambda step: step.at))))
    return tuple(found)


def _drains(rng: random.Random, nodes: int) -> list[Step]:
    """Drawn apart, so that all the rest of a seed's plan is what it was before there were any."""
    if nodes < 2 or rng.random() > DRAIN_SHARE:
        return []
    return [
        Step(
            round(rng.random() * WORK_S, 3),
            "drain-node",
            {"node": 1 + rng.randrange(nodes - 1), "seconds": round(rng.random() ** 2 * WORK_S, 3), "back": round(rng.random() * 3, 3)},
        )
        for _ in range(rng.choice([1, 1, 2]))
    ]


def _moment(rng: random.Random, begins: list[float]) -> float:
    """Any, or soon after something has begun: that is when most is under way."""
    if rng.random() < 0.4:
        return round(rng.random() * WORK_S, 3)
    return round(min(rng.choice(begins) + rng.random() ** 2 * rng.choice([0.02, 0.1, 0.5]), WORK_S), 3)


def _is_possible(fault: Fault, room: Room, scheme: str, drivers: int) -> bool:
    if not fault.weight:
        return False
    needs = {"": True, "nodes": room.nodes > 1, "tcp": scheme == "tcp" and room.nodes > 1, "reset": scheme == "tcp", "guest": drivers > 1}
    return needs[fault.needs]
