"""The programs of the partition test (tests/soak/partition.py): one that works, and one that watches the cluster meanwhile.

    python -m tests.soak.partition_driver work REGISTER ROUND VICTIM [--detached]
    python -m tests.soak.partition_driver watch VICTIM

`work` says `ready` when its actors have answered, and from then on makes calls until a line comes on its standard input; then it waits
for those under way. For each call it prints a line of JSON: what it was, when it began and ended, and its value or its error. It judges
nothing. `watch` prints the nodes of the cluster whenever they change; on the line `end NAMES` it waits until these detached actors
live, and kills them.
Times are of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import actorflow as af
from tests.soak.register import register_at

ACT_S = 0.1
CALL_S = 0.1
"""Between two calls of one stream."""
TASK_S = 0.25
RUN_S = 0.9
"""A task takes longer than the pause between two, so that some are under way on each node whenever the cable is cut."""
UNDER_WAY_MAX = 400
"""Calls of one stream under way: more than those of a partition that lasts 30 s."""
END_S = 60.0
"""A call that has not ended so long after the last one was made has hung."""
LOOK_S = 0.2
FACTOR = 7

Start = Callable[[int, str], Awaitable[Any]]
"""Makes the call with this number and name."""


class Acting(af.Actor, max_restarts=-1, num_cpus=0):
    """Acts by itself, and when it is called; each time it writes that down."""

    def __init__(self, register: str, name: str) -> None:
        self.register = register_at(register)
        self.name = name
        self.seq = 0
        self.life = self.register.born(name)
        self.acting = asyncio.ensure_future(self.go_on())

    async def go_on(self) -> None:
        while True:
            self.seq += 1
            self.register.act(self.name, self.life, self.seq)
            await asyncio.sleep(ACT_S)

    @af.method
    async def echo(self, number: int, call: str) -> tuple[int, int]:
        self.seq += 1
        self.register.call(self.name, self.life, self.seq, call)
        await asyncio.sleep(0.02)
        return number * FACTOR, self.life


@af.remote(num_cpus=0.25, scheduling_strategy="spread")
async def multiply(register: str, number: int, call: str) -> tuple[int, int]:
    register_at(register).call("task", 0, number, call)
    await asyncio.sleep(RUN_S)
    return number * FACTOR, 0


def say(**line: Any) -> None:
    """One line for whoever has started this program."""
    print(json.dumps(line), flush=True)


async def node_at(host: str) -> str:
    """The node that listens at this host."""
    rows = await af.state.list_nodes()
    return next(row["node_id"] for row in rows if row["state"] == "alive" and f":{host}:" in row["address"])


class Work:
    """The calls of one driver."""

    def __init__(self, register: str, round_name: str) -> None:
        self.register = register
        self._round = round_name
        self._under_way: dict[str, str] = {}
        self._waiting: set[asyncio.Task[None]] = set()
        self.ended = asyncio.Event()
        self.lost = asyncio.Event()
        """This driver has no cluster any more: its own node was cut off."""

    def actors(self, places: dict[str, str], *, detached: bool) -> dict[str, Any]:
        """By stream: with and without retries, where the partition will be and elsewhere."""
        found = {}
        for (place, node_id), (mode, retries) in itertools.product(places.items(), (("once", 0), ("again", -1))):
            name = f"{self._round}-{place}-{mode}"
            found[f"{place}-{mode}"] = Acting.options(
                max_task_retries=retries,
                scheduling_strategy=af.NodeAffinity(node_id, soft=True),
                name=name,
                namespace="partition",
                lifetime="detached" if detached else None,
            ).remote(self.register, name)
        return found

    async def stream(self, kind: str, pause_s: float, start: Start) -> None:
        """Calls of one kind, one after the other, whether or not those before have ended."""
        room = asyncio.Semaphore(UNDER_WAY_MAX)
        for number in itertools.count():
            if self.ended.is_set() or self.lost.is_set():
                return
            await room.acquire()
            call = f"{self._round}-{kind}-{number}"
            self._under_way[call] = kind
            task = asyncio.create_task(self._follow(kind, call, number, start, room), name=call)
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)
            await asyncio.sleep(pause_s)

    async def _follow(self, kind: str, call: str, number: int, start: Start, room: asyncio.Semaphore) -> None:
        began = time.monotonic()
        told: dict[str, Any]
        try:
            value, life = await start(number, call)
            told = {"value": value, "life": life}
        except Exception as error:  # Whatever comes is told; the other side judges.
            told = {"error": type(error).__name__, "typed": isinstance(error, af.ActorflowError), "text": str(error)[:300]}
            if isinstance(error, af.ClusterConnectionError):
                self.lost.set()
        del self._under_way[call]
        say(call=call, kind=kind, number=number, began=began, ended=time.monotonic(), **told)
        room.release()

    async def settle(self) -> None:
        """Wait for what is under way, and tell what hangs."""
        if self._waiting:
            await asyncio.wait(list(self._waiting), timeout=END_S)
        for call, kind in self._under_way.items():
            say(hung=call, kind=kind)


def on_line(heard: Callable[[str], None]) -> None:
    """Call `heard` with the next line of standard input, on this loop."""
    loop = asyncio.get_running_loop()
    threading.Thread(target=lambda: loop.call_soon_threadsafe(heard, sys.stdin.readline()), daemon=True).start()


async def work(register: str, round_name: str, victim: str, detached: bool) -> None:
    """See the module."""
    doing = Work(register, round_name)
    session = await af.init(log_to_driver=False)
    places = {"cut": await node_at(victim)}
    rows = await af.state.list_nodes()
    places["whole"] = next(row["node_id"] for row in rows if row["state"] == "alive" and row["node_id"] != places["cut"])
    actors = doing.actors(places, detached=detached)
    for name, actor in actors.items():
        value, _ = await actor.echo(1, f"{round_name}-first-{name}")
        assert value == FACTOR, value
    say(ready=True)
    on_line(lambda _: doing.ended.set())
    streams = [
        doing.stream("task-once", TASK_S, lambda number, call: multiply.options(max_retries=0)(register, number, call)),
        doing.stream("task-again", TASK_S, lambda number, call: multiply.options(max_retries=-1)(register, number, call)),
        *(doing.stream(name, CALL_S, actor.echo) for name, actor in actors.items()),
    ]
    await asyncio.gather(*streams)
    if doing.lost.is_set():
        say(lost=time.monotonic())
        await doing.settle()
        await come_back(doing)
    else:
        await doing.settle()
        if not detached:
            await asyncio.gather(*(af.kill(actor) for actor in actors.values()))
    say(done=True)
    del session
    await af.shutdown()


async def come_back(doing: Work) -> None:
    """The node of this driver begins again as another one: so does this driver."""
    while not doing.ended.is_set():
        await af.shutdown()
        try:
            async with asyncio.timeout(5.0):
                await af.init(log_to_driver=False)
                await multiply.options(max_retries=-1)(doing.register, 1, "back")
            say(back=time.monotonic())
            await doing.ended.wait()
            return
        except (af.ActorflowError, OSError, TimeoutError):
            await asyncio.sleep(0.5)


async def watch(victim: str) -> None:
    """See the module."""
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with af.init(log_to_driver=False):
        on_line(ended.set_result)
        before: list[Any] = []
        while not ended.done():
            rows = [[row["node_id"], f":{victim}:" in row["address"], row["state"]] for row in await af.state.list_nodes()]
            if rows != before:
                before = rows
                say(at=time.monotonic(), nodes=rows)
            await asyncio.wait([ended], timeout=LOOK_S)
        for name in (await ended).split()[1:]:
            # Not called: the key of one job opens no connection to a process of another one between hosts.
            actor = await asyncio.wait_for(af.get_actor(name, namespace="partition"), END_S)
            await asyncio.wait_for(actor, END_S)
            say(actor=name, alive=True)
            await af.kill(actor)


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    worker = commands.add_parser("work")
    for name in ("register", "round", "victim"):
        worker.add_argument(name)
    worker.add_argument("--detached", action="store_true")
    commands.add_parser("watch").add_argument("victim")
    options = parser.parse_args()
    if options.command == "work":
        asyncio.run(work(options.register, options.round, options.victim, options.detached))
    else:
        asyncio.run(watch(options.victim))


if __name__ == "__main__":
    # Workers find what is here by its name: not as __main__.
    from tests.soak import partition_driver

    partition_driver.main()
