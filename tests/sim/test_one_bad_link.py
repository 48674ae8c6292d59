"""A node whose link with the head alone is bad lives: other nodes pass on its beats, and all that needs no head goes on (LV-4, LV-5)."""

from __future__ import annotations

import asyncio
from typing import Any

import actorflow as af
from actorflow._core.io.lasting_peers import LastingPeer
from actorflow._core.policy.liveness import INDIRECT_MAX_S, LEASE_S, LOOK_S, SILENCE_S
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster, SimDriver
from actorflow.testing.sim_node import SimNode
from tests.sim.test_nodes import finish
from tests.sim.test_partitions import Register

CUT_S = 30.0
ASK_S = 0.2
ACT_S = 0.1

register: Register


class Keeper(af.Actor, max_restarts=-1, resources={"far": 1}, num_cpus=0):
    """Knows what it was told in this life, and acts by itself."""

    def __init__(self) -> None:
        self.life = register.born()
        self.told: list[int] = []
        self.acting = asyncio.ensure_future(self.go_on())

    async def go_on(self) -> None:
        while True:
            register.act(self.life)
            await asyncio.sleep(ACT_S)

    @af.method
    async def tell(self, number: int) -> tuple[int, int]:
        register.act(self.life)
        self.told.append(number)
        return self.life, len(self.told)


class Cut:
    """A head with its first node, one node with a keeper, and others; a driver on a machine of its own."""

    def __init__(self, world: World, *, others: int = 1, durable: bool = False) -> None:
        global register
        register = Register(world)
        self.world = world
        self.cluster = SimCluster(world, num_cpus=1, scheme="tcp", durable=durable)
        self.far = self.cluster.add_node(num_cpus=2, resources={"far": 2})
        self.others = [self.cluster.add_node(num_cpus=1) for _ in range(others)]
        world.run_until(lambda: all(node.node is not None for node in self.cluster.nodes), 20.0)
        world.run_for(2.0)

    @property
    def head_host(self) -> Any:
        return self.cluster.node_host if self.cluster.sim_head is None else self.cluster.sim_head.host

    def node_id(self, node: SimNode) -> str:
        assert node.node is not None
        return node.node.node_id

    def watch(self) -> Any:
        assert self.cluster.head is not None
        watch = self.cluster.head._watch
        assert watch is not None
        return watch

    def apart(self) -> bool:
        return bool(self.watch().knows_apart(self.node_id(self.far)))

    def reason(self) -> str:
        """What the head says of the far node."""
        assert self.cluster.head is not None
        [node] = [one for one in self.cluster.head._nodes.membership.nodes() if one.node_id == self.node_id(self.far)]
        return node.reason or node.apart

    def driver(self, main: Any) -> SimDriver:
        return self.cluster.driver(main, outside=True)

    def wait_for_acts(self, count: int = 5) -> None:
        self.world.run_until(lambda: len(register.acts.get(1, [])) > count, 60.0)

    def cut(self, *, resets: bool = False, one_way: str = "") -> None:
        """Between the head and the machine of the far node: with resets, as far as the connections that are there, or silently."""
        fabric, machine, head = self.world.fabric, self.far.host.machine, self.head_host.name
        if resets:
            assert self.between(head, machine)
            while broken := self.between(head, machine):  # Also what was made again before the cut.
                for end in broken:
                    fabric.reset(end)
                self.world.run_until(lambda: all(end.closed and end.peer.closed for end in broken), 5.0)
        if one_way == "to the head":
            fabric.cut_one_way([machine], [head])
        elif one_way == "from the head":
            fabric.cut_one_way([head], [machine])
        else:
            fabric.partition([head], [machine])

    def between(self, head: str, machine: str) -> list[Any]:
        """The head's ends of what connects it with the machine."""
        ends = [end for both in self.world.fabric.connections() for end in both if not end.closed]
        return [end for end in ends if end.host.name == head and end.peer.host.machine == machine]

    def ends(self, driver: SimDriver, timeout_s: float = 100.0) -> Any:
        self.world.run_until(lambda: driver.ended, timeout_s)
        return driver.result()

    def never_two_lives(self) -> None:
        lives = [register.acts[life] for life in sorted(register.acts)]
        for before, after in zip(lives, lives[1:], strict=False):
            assert before[-1] < after[0], "LV-1: two lives of one actor act at the same time"


async def ask(keeper: Any, seconds: float, found: list[tuple[int, int]]) -> None:
    """One call after the other; each has to come back soon."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        async with asyncio.timeout(3.0):
            found.append(await keeper.tell(len(found)))
        await asyncio.sleep(ASK_S)


def lives_through(cut: Cut, *, resets: bool = False, one_way: str = "") -> None:
    """The link is cut in the middle of calls: they go on, the actor has all that it was told, and afterwards all is as before."""
    world = cut.world
    found: list[tuple[int, int]] = []
    rows: list[Any] = []

    async def main() -> list[tuple[int, int]]:
        keeper = await Keeper.remote()
        await ask(keeper, CUT_S + 15.0, found)
        rows.append([row for row in await af.state.list_actors() if row["state"] == "alive"])
        # Only the far node can hold it.
        another = await Keeper.remote()
        await another.tell(0)
        return found

    driver = cut.driver(main)
    cut.wait_for_acts()
    cut.cut(resets=resets, one_way=one_way)
    world.run_for(CUT_S)
    assert cut.far.host.alive, "it is not given up"
    assert cut.apart()
    assert "heard only through other nodes: node " in cut.reason()
    link = cut.far.node._head._peer  # type: ignore[union-attr]
    assert isinstance(link, LastingPeer)
    assert link._up is not resets
    world.fabric.heal()
    found = cut.ends(driver)
    assert found == [(1, number + 1) for number in range(len(found))], "one life, which has all that it was told"
    assert len(found) > CUT_S / ASK_S / 2
    assert [[row["restarts"], row["incarnation"]] for row in rows[0]] == [[0, 1]]
    assert register.lives == 2, "the second one was made when all was well again"
    assert not cut.apart()
    assert cut.reason() == ""
    assert [node.host.alive for node in cut.cluster.nodes] == [True] * len(cut.cluster.nodes)
    finish(cut.cluster, driver)


def test_a_node_lives_when_its_link_with_the_head_is_cut_silently(sim_seed: int) -> None:
    with World(sim_seed) as world:
        cut = Cut(world)
        lives_through(cut)


def test_a_node_lives_when_its_link_with_the_head_is_cut_with_resets(sim_seed: int) -> None:
    """LP-4: both sides go on mending."""
    with World(sim_seed) as world:
        cut = Cut(world, others=2)
        lives_through(cut, resets=True)


def test_it_lives_when_the_head_has_a_process_of_its_own(sim_seed: int) -> None:
    with World(sim_seed) as world:
        cut = Cut(world, durable=True)
        lives_through(cut, resets=sim_seed % 2 == 1)


def test_a_cut_in_one_direction(sim_seed: int) -> None:
    """Beats that do not arrive, or answers that do not."""
    with World(sim_seed) as world:
        cut = Cut(world)
        lives_through(cut, resets=sim_seed % 3 == 0, one_way=("to the head", "from the head")[sim_seed % 2])


class Boss(af.Actor, resources={"far": 1}, num_cpus=0):
    """Has an actor of its own, on any other node."""

    @af.method
    async def begin(self) -> None:
        me = af.get_runtime_context().node_id
        self.child = await Where.options(label_selector={"actorflow.io/node-id": f"!{me}"}).remote()

    @af.method
    async def child_is_at(self) -> str:
        return await self.child.node()


def test_what_processes_on_that_node_own_elsewhere_lives_too(sim_seed: int) -> None:
    """They have lines with the head of their own, which are as bad; none of them is taken for gone."""
    found: list[str] = []

    async def main() -> str:
        boss = await Boss.remote()
        await boss.begin()
        until = asyncio.get_running_loop().time() + CUT_S + 15.0
        while asyncio.get_running_loop().time() < until:
            async with asyncio.timeout(3.0):
                found.append(await boss.child_is_at())
            await asyncio.sleep(1.0)
        [child] = [row for row in await af.state.list_actors() if row["class_name"] == "Where"]
        return str(child["state"])

    with World(sim_seed) as world:
        cut = Cut(world, others=2, durable=sim_seed % 2 == 1)
        driver = cut.driver(main)
        world.run_until(lambda: len(found) > 2, 30.0)
        cut.cut(resets=True)
        world.run_for(CUT_S)
        world.fabric.heal()
        assert cut.ends(driver) == "alive"
        assert len(set(found)) == 1
        assert found[0] != cut.node_id(cut.far)
        finish(cut.cluster, driver)


def test_another_node_passes_beats_on_when_the_one_that_did_dies(sim_seed: int) -> None:
    with World(sim_seed) as world:
        cut = Cut(world, others=4)

        def begin() -> None:
            cut.cut(resets=sim_seed % 2 == 1)
            world.run_until(cut.apart, 10.0)
            for other in cut.others[:3]:
                world.run_for(5.0)
                world.kill(other.host)

        found: list[tuple[int, int]] = []

        async def main() -> None:
            await ask(await Keeper.remote(), CUT_S + 15.0, found)

        driver = cut.driver(main)
        cut.wait_for_acts()
        begin()
        world.run_for(CUT_S - 15.0)
        assert cut.far.host.alive
        assert cut.apart()
        world.fabric.heal()
        cut.ends(driver)
        assert found == [(1, number + 1) for number in range(len(found))]
        finish(cut.cluster, driver)


def test_lv_5_a_link_that_does_not_come_back_ends_the_node_and_no_two_lives_act(sim_seed: int) -> None:
    async def main() -> tuple[int, int]:
        keeper = await Keeper.options(max_task_retries=-1, resources={"far": 1}).remote()
        for number in range(5):
            await keeper.tell(number)
        while register.lives < 2:
            await asyncio.sleep(1.0)
        return await keeper.tell(5)

    with World(sim_seed) as world:
        cut = Cut(world)
        driver = cut.driver(main)
        cut.wait_for_acts()
        spare = cut.cluster.add_node(num_cpus=1, resources={"far": 1})
        world.run_until(lambda: spare.node is not None, 20.0)
        world.run_for(1.0)
        cut_at = world.now
        cut.cut(resets=sim_seed % 2 == 1)
        world.run_for(INDIRECT_MAX_S)
        assert cut.far.host.alive
        world.run_until(lambda: not cut.far.host.alive, LEASE_S + 7.0)
        assert cut.far.gave_up
        life, told = cut.ends(driver)
        assert (life, told) == (2, 1)
        cut.never_two_lives()
        began_again = register.acts[2][0] - cut_at
        assert INDIRECT_MAX_S + SILENCE_S < began_again < INDIRECT_MAX_S + SILENCE_S + LOOK_S + 7.0
        assert f"heard only through other nodes for {INDIRECT_MAX_S:g} s" in cut.reason()
        world.fabric.heal()
        world.run_for(10.0)
        finish(cut.cluster, driver)


def test_a_node_that_dies_while_others_speak_for_it_is_noticed(sim_seed: int) -> None:
    with World(sim_seed) as world:
        cut = Cut(world)
        cut.cut(resets=sim_seed % 2 == 1)
        world.run_until(cut.apart, 10.0)
        world.run_for(12.0)
        assert cut.apart()
        died_at = world.now
        for host in [host for host in world.living() if host.machine == cut.far.host.machine]:
            world.kill(host)
        far = cut.node_id(cut.far)
        assert cut.cluster.head is not None
        membership = cut.cluster.head._nodes.membership
        world.run_until(lambda: far not in membership.living(), SILENCE_S + LOOK_S + 0.5)
        assert world.now - died_at > SILENCE_S - 2.0
        assert "and before that only through other nodes" in cut.reason()
        world.fabric.heal()
        cut.cluster.stop()


def test_nothing_new_is_placed_there_and_what_only_it_could_hold_waits_for_it(sim_seed: int) -> None:
    begun: list[bool] = []
    places: list[str] = []

    async def main() -> None:
        begun.append(True)
        while not places:
            await asyncio.sleep(0.1)
        places.clear()
        [row] = [row for row in await af.state.list_nodes() if row["node_id"] == cut.node_id(cut.far)]
        assert row["state"] == "alive"
        assert row["reason"].startswith("heard only through other nodes: node ")
        for _ in range(4):
            places.append(await (await Where.remote()).node())
        waits = Keeper.remote()
        asking = asyncio.ensure_future(waits.tell(1))
        await asyncio.sleep(5.0)
        assert not asking.done()
        begun.append(True)
        await asking

    with World(sim_seed) as world:
        cut = Cut(world)
        driver = cut.driver(main)
        world.run_until(lambda: bool(begun), 20.0)
        cut.cut(resets=sim_seed % 2 == 1)
        world.run_until(cut.apart, 10.0)
        places.append("begin")
        world.run_until(lambda: len(begun) == 2, 60.0)
        assert cut.node_id(cut.far) not in places
        assert register.lives == 0
        world.fabric.heal()
        cut.ends(driver)
        assert register.lives == 1
        finish(cut.cluster, driver)


class Where(af.Actor, num_cpus=0):
    @af.method
    async def node(self) -> str:
        return af.get_runtime_context().node_id


def test_a_cluster_of_two_nodes_has_nobody_to_ask(sim_seed: int) -> None:
    """Also when only the head's process is out of reach: the first node passes nothing on."""
    with World(sim_seed) as world:
        cut = Cut(world, others=0, durable=sim_seed % 3 == 1)
        cut.cut(resets=sim_seed % 2 == 1)
        world.run_until(lambda: not cut.far.host.alive, SILENCE_S)
        assert cut.far.gave_up
        world.fabric.heal()
        world.run_for(10.0)
        cut.cluster.stop()
