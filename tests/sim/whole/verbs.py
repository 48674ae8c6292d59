"""The vocabulary of the programs: what an operation does, what it must give, and what it may end in.

An operation is promised to survive every fault of a plan unless its verb allows errors by name: tasks and actors with retries give their
values whoever dies. What has no retries runs at most once, and says so when it is lost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import actorflow as af
from tests.sim.whole import work
from tests.sim.whole.plan import Args

if TYPE_CHECKING:
    from tests.sim.whole.program import Program

LOST = (af.WorkerCrashedError, af.NodeDiedError)
"""What a task without retries may end in."""
GONE = (af.ActorDiedError, af.ActorUnavailableError)
SIZES = (110_000, 150_000, 250_000, 400_000)
MS = (0, 0, 10, 50, 200, 500)


class OneOf:
    """Equal to each of some values."""

    def __init__(self, *values: object) -> None:
        self.values = values

    def __eq__(self, other: object) -> bool:
        return other in self.values

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return " or ".join(map(repr, self.values))


class Room(NamedTuple):
    """What there is to draw from."""

    nodes: int
    cpus: int
    """Of the first node, which does not die: what is asked for fits there."""


Draw = Callable[[random.Random, Room], Args]
Run = Callable[["Program", Any, int], Awaitable[Any]]
"""Runs an operation with its arguments and the number of its call."""


class Verb(NamedTuple):
    """See the module. `once`: of the arguments, whether its code may start twice."""

    name: str
    weight: int
    draw: Draw
    run: Run
    expected: Callable[[Any], Any]
    may_raise: Callable[[Any], tuple[type[BaseException], ...]]
    once: Callable[[Any], bool]


VERBS: dict[str, Verb] = {}


def verb(
    weight: int,
    draw: Draw,
    expected: Callable[[Any], Any],
    may_raise: Callable[[Any], tuple[type[BaseException], ...]] = lambda a: (),
    once: Callable[[Any], bool] = lambda a: False,
) -> Callable[[Run], Run]:
    """Enter an operation; its name is that of the function."""

    def enter(run: Run) -> Run:
        name = run.__name__.rstrip("_")
        VERBS[name] = Verb(name, weight, draw, run, expected, may_raise, once)
        return run

    return enter


def _seconds(args: Any) -> float:
    return float(args["ms"]) / 1000


# -- tasks


def _draw_task(rng: random.Random, room: Room) -> Args:
    form = rng.choice(["async", "async", "def", "once", "failing"])
    return {
        "form": form,
        "number": rng.randrange(100),
        "ms": rng.choice(MS),
        "cpus": rng.choice([1, 1, 0.5, room.cpus]),
        "on": _node(rng, room),
    }


def _node(rng: random.Random, room: Room) -> int:
    """A node that is preferred; -1 for none."""
    return rng.choice([-1, rng.randrange(room.nodes)])


@verb(
    10,
    _draw_task,
    lambda a: a["number"] % 3 if a["form"] == "failing" else a["number"] * 2,
    lambda a: LOST if a["form"] == "once" else (),
    lambda a: a["form"] == "once",
)
async def task(program: Program, a: Any, call: int) -> Any:
    options = program.options(a, num_cpus=a["cpus"])
    if a["form"] == "once":
        return await work.once.options(**options)(call, a["number"], _seconds(a))
    if a["form"] == "failing":
        return await work.fails_at_first.options(**options)(f"{call}", a["number"] % 3)
    return await (work.again if a["form"] == "async" else work.block).options(**options)(a["number"], _seconds(a))


def _below(a: Any) -> int:
    children, depth = int(a["children"]), int(a["depth"])
    return int(sum(children**level for level in range(1, depth + 1)))


@verb(
    4,
    lambda rng, room: {
        "form": rng.choice(["async", "def"]),
        "children": rng.randrange(1, 4),
        "depth": rng.randrange(1, 3),
        "ms": rng.choice(MS),
    },
    _below,
)
async def nested(program: Program, a: Any, call: int) -> Any:
    return await (work.parent if a["form"] == "async" else work.sync_parent)(a["children"], a["depth"], _seconds(a))


@verb(3, lambda rng, room: {"links": rng.randrange(2, 5), "ms": rng.choice(MS), "on": _node(rng, room)}, lambda a: 2 ** a["links"])
async def chain(program: Program, a: Any, call: int) -> Any:
    """Each waits for the one before."""
    ref: Any = 1
    for _ in range(a["links"]):
        ref = work.again.options(**program.options(a)).remote(ref, _seconds(a))
    return await ref


@verb(1, lambda rng, room: {"number": rng.randrange(100)}, lambda a: "LookupError")
async def error(program: Program, a: Any, call: int) -> Any:
    """The error of the user's code is the user's own type."""
    try:
        return await work.fails(a["number"])
    except LookupError as error:
        assert isinstance(error, af.TaskError)
        return "LookupError"


@verb(2, lambda rng, room: {"items": rng.randrange(2, 6), "ms": rng.choice(MS)}, lambda a: [2 * n for n in range(a["items"])])
async def mapped(program: Program, a: Any, call: int) -> Any:
    return [found async for found in af.map(work.again, range(a["items"]), max_in_flight=2)]


@verb(
    2,
    lambda rng, room: {"items": rng.randrange(2, 6), "ms": rng.choice(MS), "wait": rng.choice([0.01, 0.1, 1.0])},
    lambda a: [2 * n for n in range(a["items"])],
)
async def waits(program: Program, a: Any, call: int) -> Any:
    """Waiting that is given up stops nothing."""
    refs = [work.again.remote(number, _seconds(a)) for number in range(a["items"])]
    await af.wait(refs, num_returns=len(refs), timeout=a["wait"])
    return sorted([await ref async for ref in af.as_completed(refs)])


@verb(
    2,
    lambda rng, room: {"number": rng.randrange(100), "ms": rng.choice(MS), "limit": rng.choice([0.005, 0.1, 2.0])},
    lambda a: OneOf("late", a["number"] * 2),
)
async def timeout(program: Program, a: Any, call: int) -> Any:
    """Its owner's clock decides; the call ends all the same."""
    try:
        return await work.again.options(timeout=a["limit"])(a["number"], _seconds(a))
    except af.TaskTimeoutError:
        return "late"


@verb(
    4,
    lambda rng, room: {
        "what": rng.choice(["direct", "ref", "below", "actor", "queued"]),
        "after": round(rng.random() * 0.3, 3),
        "ms": rng.choice([10, 200, 2000]),
    },
    lambda a: OneOf("cancelled", "done"),
    # Behind a worker that stands still, or a link that is cut, nobody listens.
    lambda a: {"queued": (*GONE, af.CancelIgnored), "actor": (af.CancelIgnored,)}.get(a["what"], ()),
)
async def cancel(program: Program, a: Any, call: int) -> Any:
    """What it has begun it ends (WH-6)."""
    key = f"nap {call}"
    before: list[Any] = []
    target: Any = {"below": work.nap_below, "actor": program.actor("sturdy", 0).nap}.get(a["what"], work.nap)
    if a["what"] == "queued":
        target = program.actor("slow", 0).nap
        before = [target.remote(f"before {key} {number}", 0.1) for number in range(2)]
    if a["what"] == "direct":
        running = asyncio.ensure_future(target(key, _seconds(a)))
        await asyncio.sleep(a["after"])
        running.cancel()
        try:
            found = await running
        except asyncio.CancelledError:
            return "cancelled"
    else:
        ref = target.remote(key, _seconds(a))
        await asyncio.sleep(a["after"])
        ref.cancel()
        try:
            found = await ref
        except af.TaskCancelledError:
            return "cancelled"
        finally:
            await af.wait(before, num_returns=len(before)) if before else None
    return "done" if found == key else found


# -- streams


@verb(
    4,
    lambda rng, room: {
        "of": rng.choice(["task", "task", "actor", "large"]),
        "until": rng.choice([1, 5, 20, 40]),
        "take": rng.choice([0, 0, 3]),
        "ms": rng.choice(MS),
        "on": _node(rng, room),
    },
    lambda a: list(range(a["take"] or a["until"]))[: a["until"]] if a["of"] != "large" else [7] * min(a["until"], 4),
    # What a stream has given is not made again.
    lambda a: {"actor": GONE, "large": (af.ObjectLostError,)}.get(a["of"], ()),
)
async def stream(program: Program, a: Any, call: int) -> Any:
    """In order, each once (WH-4); with `take` it is left early."""
    if a["of"] == "large":
        large = work.blobs.options(**program.options(a)).remote(7, 120_000, min(a["until"], 4))
        return [work.weight(value) async for value in large]
    source: Any
    if a["of"] == "actor":
        source = program.actor("sturdy", 0).count.remote(a["until"])
    else:
        source = work.count.options(**program.options(a)).remote(a["until"], _seconds(a))
    seen: list[int] = []
    async with source:
        async for number in source:
            seen.append(number)
            if len(seen) == a["take"]:
                break
    return seen


# -- actors


def _draw_call(rng: random.Random, room: Room) -> Args:
    kind = rng.choice(["plain", "slow", "sturdy", "sturdy", "keeper", "keeper", "named"])
    form = rng.choice(["direct", "ref"])
    return {
        "kind": kind,
        "slot": rng.randrange(2),
        "number": rng.randrange(100),
        "ms": rng.choice(MS),
        "form": form,
        "on": _node(rng, room),
    }


@verb(
    12,
    _draw_call,
    lambda a: a["number"] * 2,
    lambda a: GONE if a["kind"] in ("plain", "slow") else (),
    lambda a: a["kind"] in ("plain", "slow"),
)
async def call(program: Program, a: Any, call: int) -> Any:
    method = program.actor(a["kind"], a["slot"], a["on"]).call
    if a["form"] == "direct":
        found = await method(call, a["number"], _seconds(a))
    else:
        found = await method.remote(call, a["number"], _seconds(a))
    if a["kind"] in ("keeper", "named"):
        program.acknowledged(a["kind"], a["slot"], call, a["number"])
    return found


@verb(1, lambda rng, room: {"slot": rng.randrange(2)}, lambda a: "bounced")
async def bounce(program: Program, a: Any, call: int) -> Any:
    """The program itself has an actor restarted."""
    await af.kill(program.actor("sturdy", a["slot"]), no_restart=False)
    return "bounced"


@verb(
    3,
    lambda rng, room: {
        "strategy": rng.choice(["one_for_one", "one_for_all", "rest_for_one"]),
        "members": rng.randrange(2, 4),
        "rounds": rng.randrange(2, 6),
        "ms": rng.choice([50, 200, 500]),
    },
    lambda a: [[2 * n] * a["members"] for n in range(a["rounds"])],
)
async def supervise(program: Program, a: Any, call: int) -> Any:
    actors = [work.Member.remote() for _ in range(a["members"])]
    found = []
    async with af.supervise(*actors, strategy=a["strategy"], max_restarts=1_000, within=1_000.0):
        for number in range(a["rounds"]):
            found.append(await asyncio.gather(*(actor.call(number, _seconds(a)) for actor in actors)))
    return found


# -- detached calls


def _draw_detached(rng: random.Random, room: Room) -> Args:
    return {
        "form": rng.choice(["small", "large", "large", "argument", "once", "error", "cancelled"]),
        "read": rng.choice(["here", "task", "both"]),
        "number": rng.randrange(1, 100),
        "size": rng.choice(SIZES),
        "ms": rng.choice(MS),
        "on": _node(rng, room),
        "to": _node(rng, room),
    }


def _of_detached(a: Any) -> Any:
    form, number = a["form"], a["number"]
    if form == "cancelled":
        return OneOf("cancelled", number * 2)
    found = {"large": [number, number], "error": "LookupError"}.get(form, number * 2)
    return [found, found] if a["read"] == "both" and form != "error" else found


@verb(
    0,  # They are drawn apart (draw.py).
    _draw_detached,
    _of_detached,
    # Both nodes that keep a large one may die at one time.
    lambda a: {"once": LOST, "large": (af.ObjectLostError,), "argument": (af.ObjectLostError,)}.get(a["form"], ()),
    lambda a: a["form"] == "once",
)
async def detached(program: Program, a: Any, call: int) -> Any:
    """It is made as long as it takes, whoever dies, and the cluster owns it."""
    form, number, seconds, options = a["form"], a["number"], _seconds(a), program.options(a)
    given: list[Any] = []
    if form == "large":
        ref: Any = await work.detached_blob.options(**options).submit(number, a["size"], seconds)
    elif form == "once":
        ref = await work.detached_once.options(**options).submit(call, number, seconds)
    elif form == "error":
        ref = await work.detached_error.options(**options).submit(number)
    elif form == "argument":
        # It is in another process, which may go when the cluster has it.
        given = [work.again.options(**program.options({"on": a["to"]})).remote(number), work.make.remote(number, a["size"])]
        ref = await work.detached_argument.options(**options).submit(given[0], given, seconds)
    else:
        ref = await work.detached.options(**options).submit(f"detached {call}", number, seconds)
    del given
    try:
        if form == "cancelled":
            await asyncio.sleep(seconds / 2)
            ref.cancel()
        readers: list[Any] = [work.read_box([ref])] if a["read"] != "task" else []
        if a["read"] != "here":
            readers.append(work.read.options(**program.options({"on": a["to"]}))([ref]))
        found = await asyncio.gather(*readers)
        return found if a["read"] == "both" and form != "cancelled" else found[0]
    except af.TaskCancelledError:
        return "cancelled"
    except LookupError as error:
        assert isinstance(error, af.TaskError)
        return "LookupError"
    finally:
        await af.free(ref)


# -- large values


@verb(
    8,
    lambda rng, room: {
        "how": rng.choice(["put", "made", "made", "of-actor", "owned", "owned-by-task", "durable", "durable-by-task"]),
        "read": rng.choice(["here", "task", "borrowed", "actor", "lent"]),
        "byte": rng.randrange(1, 200),
        "size": rng.choice(SIZES),
        "readers": rng.randrange(1, 4),
        "rest": rng.choice([0, 0, 0.5, 1]),
        "on": _node(rng, room),
        "to": _node(rng, room),
    },
    lambda a: [a["byte"]] * a["readers"],
    # What an actor has made is not made again, and what it owns dies with it; of durable ones both nodes that keep it may die at one time.
    lambda a: () if a["how"] in ("put", "made") else (af.ObjectLostError,),
)
async def bulk(program: Program, a: Any, call: int) -> Any:
    """A large value is made somewhere and read somewhere else, by several at a time."""
    byte, size = a["byte"], a["size"]
    if a["how"] == "put":
        box = [await af.put(work.blob(byte, size))]
    elif a["how"] == "made":
        box = [work.make.options(**program.options(a)).remote(byte, size)]
    elif a["how"] == "of-actor":
        box = [program.actor("sturdy", 0, a["on"]).give.remote(byte, size)]
    elif a["how"] == "owned":
        box = await program.actor("sturdy", 0, a["on"]).own(byte, size)
    elif a["how"] == "durable":
        box = [await af.put(work.blob(byte, size), durable=True)]
    elif a["how"] == "durable-by-task":
        box = await work.own_durably.options(**program.options(a))(byte, size)
    else:
        box = await work.own.options(**program.options(a))(byte, size)
    if a["rest"]:
        await af.wait(box)
        await asyncio.sleep(a["rest"])
    try:
        return await asyncio.gather(*(_read(program, a, box) for _ in range(a["readers"])))
    finally:
        if a["how"].startswith("durable"):
            await af.free(box)


async def _read(program: Program, a: Any, box: list[Any]) -> int:
    there = program.options({"on": a["to"]})
    if a["read"] == "here":
        return work.weight(await box[0])
    if a["read"] == "task":
        return await work.look.options(**there)(af.deref(box[0]), 0.05)
    if a["read"] == "borrowed":
        return await work.look_into.options(**there)(box)
    actor = program.actor("sturdy", 1, a["to"])
    return int(await (actor.look(box[0]) if a["read"] == "actor" else actor.look_into(box)))


@verb(
    4,
    lambda rng, room: {
        "how": rng.choice(["put", "made"]),
        "items": rng.randrange(6, 14),
        "size": rng.choice(SIZES),
        "rest": rng.choice([0, 0.3, 1]),
        "on": _node(rng, room),
    },
    lambda a: list(range(1, a["items"] + 1)),
)
async def hoard(program: Program, a: Any, call: int) -> Any:
    """More than there is room for: it goes to disk and comes back, or is made again."""
    options = program.options(a)
    if a["how"] == "put":
        refs = [await af.put(work.blob(number, a["size"])) for number in range(1, a["items"] + 1)]
    else:
        refs = [work.make.options(**options).remote(number, a["size"]) for number in range(1, a["items"] + 1)]
    await asyncio.sleep(a["rest"])
    found = []
    for ref in refs:
        found.append(work.weight(await ref))
    return found


@verb(
    3,
    lambda rng, room: {"byte": rng.randrange(1, 200), "size": rng.choice([200_000, 400_000, 600_000]), "on": rng.randrange(room.nodes)},
    lambda a: [a["byte"]] * 4,
)
async def broadcast(program: Program, a: Any, call: int) -> Any:
    """All nodes read it at one time, and have it from one another."""
    ref = work.make.options(**program.options(a)).remote(a["byte"], a["size"])
    await af.wait([ref])
    return await asyncio.gather(*(work.look.options(**program.options({"on": number}))(af.deref(ref), 0.1) for number in range(4)))


# -- placement groups


@verb(
    4,
    lambda rng, room: {
        "bundles": rng.randrange(1, 4),
        "cpus": rng.choice([0.5, 1]),
        "strategy": rng.choice(
            ["PACK", "SPREAD", "SPREAD", "STRICT_PACK"] if room.nodes == 1 else ["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
        ),
        "tasks": rng.randrange(1, 4),
        "actor": rng.randrange(2),
        "ms": rng.choice([0, 50, 500, 1000]),
    },
    lambda a: [2 * n for n in range(a["tasks"] + a["actor"])],
    lambda a: (af.PlacementGroupUnschedulableError,),
)
async def group(program: Program, a: Any, call: int) -> Any:
    """It keeps its place, or gets another; its tasks are tried again there."""
    placed = af.placement_group([{"CPU": a["cpus"]}] * a["bundles"], a["strategy"])
    try:
        await placed.ready()
        inside: Any = {"placement_group": placed, "num_cpus": a["cpus"]}
        calls = [work.again.options(**inside).remote(number, _seconds(a)) for number in range(a["tasks"])]
        if a["actor"]:
            actor: Any = work.Sturdy.options(placement_group=placed).remote(f"{program.name}/in group {call}")
            calls.append(actor.call.remote(call, a["tasks"], 0.0))
        return await af.get(calls)
    finally:
        await placed.remove()
