"""A world repeats itself exactly, kills where it is told, and finds what only some orders show."""

import asyncio
import gc
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from actorflow._core.base.errors import OptionError, OptionTypeError
from actorflow._core.io.ports import Stream
from actorflow.testing import (
    FaultPlan,
    History,
    Host,
    InvariantBroken,
    Nemesis,
    SimulationStuck,
    World,
    check,
    errors_allowed,
    leftovers,
    require,
    values_match,
)

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "unix:/server.sock"


class Connection:
    """Lines over a stream: the toy's whole protocol."""

    def __init__(self, on_line: Callable[["Connection", str], None]) -> None:
        self.stream: Stream | None = None
        self.lost = asyncio.get_running_loop().create_future()
        self._on_line = on_line
        self._rest = b""

    def send(self, line: str) -> None:
        assert self.stream is not None
        self.stream.write(line.encode() + b"\n")

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._on_line(self, line.decode())

    def connection_lost(self, reason: str) -> None:
        self.lost.set_result(reason)


def double_server(host: Host) -> object:
    """Answer each number with its double."""

    def accept(stream: Stream) -> Connection:
        connection = Connection(lambda me, line: me.send(f"{line} {2 * int(line)}"))
        connection.stream = stream
        return connection

    return host.loop.create_task(host.network.listen(ADDRESS, accept))


async def ask(host: Host, history: History, number: int) -> None:
    """Ask for the double of a number, and record how that ends."""
    call = history.invoked(host.name, "server", "double", number)
    answers: asyncio.Queue[str] = asyncio.Queue()
    connection = Connection(lambda me, line: answers.put_nowait(line))
    try:
        connection.stream = await host.network.connect(ADDRESS, connection)
        connection.send(str(number))
        get = asyncio.ensure_future(answers.get())
        await asyncio.wait([get, connection.lost], return_when=asyncio.FIRST_COMPLETED)
        if not get.done():
            get.cancel()
            raise ConnectionResetError(connection.lost.result())
        history.ended(call, int(get.result().split()[1]))
        connection.stream.close()
        await connection.lost
    except OSError as error:
        history.failed(call, error)


class Toy:
    """One server, one client, one request."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.history = History(lambda: world.now)
        self.server = world.start("server", double_server)
        world.run_until(lambda: bool(world.fabric.addresses()))
        self.client = world.host("client")
        self.task = self.client.run(ask(self.client, self.history, 21))

    def check(self) -> None:
        checks = [values_match(lambda call: 2 * call.args[0]), errors_allowed(OSError)]
        check(self.history, checks, seed=self.world.seed)


@pytest.fixture
def world() -> Iterator[World]:
    with World(1) as world:
        yield world


# -- WO-1: the same seed, the same trace


def digest(seed: int, noise: int = 0) -> str:
    junk = [object() for _ in range(noise)]
    with World(seed) as world:
        toy = Toy(world)
        nemesis = Nemesis(world, plan=FaultPlan(gap_steps_mean=5))
        nemesis.start()
        world.run_for(20)
        toy.check()
        assert junk is not None
        return world.trace.digest


def test_wo_1_the_same_seed_gives_the_same_trace(sim_seed: int) -> None:
    assert digest(sim_seed) == digest(sim_seed, noise=10_000)


@pytest.mark.parametrize("seed", ["x", 1.0, None, True])
def test_a_seed_is_a_whole_number(seed: object) -> None:
    with pytest.raises(OptionTypeError, match=r"World\(seed=.*\): a whole number is needed"):
        World(seed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"kill": -1}, r"FaultPlan\(kill=-1\): a number is needed, 0 or more"),
        ({"delay_max_s": float("nan")}, "0 or more"),
        ({"gap_steps_mean": 0}, "1 or more"),
        ({"faults_max": "3"}, "a number is needed, not str"),
    ],
)
def test_a_plan_of_faults_says_what_is_wrong(given: dict[str, object], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        FaultPlan(**given)  # type: ignore[arg-type]


def test_different_seeds_give_different_traces() -> None:
    assert len({digest(seed) for seed in range(50)}) == 50


def test_wo_1_holds_in_another_interpreter() -> None:
    code = "from tests.sim.test_world import digest; print(digest(5))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "1")
    }
    assert outputs == {digest(5) + "\n"}


def test_wo_2_generators_for_different_purposes_do_not_disturb_one_another() -> None:
    with World(1) as one, World(1) as other:
        one.rng("a").random()
        assert one.rng("b").random() == other.rng("b").random()
        assert one.rng("a") is one.rng("a")


def test_the_clocks_of_two_hosts_differ_by_far(world: World) -> None:
    one, other = (world.ports(world.host(name)) for name in ("one", "other"))
    assert abs(one.monotonic() - other.monotonic()) > 1_000
    assert abs(one.wall_time() - other.wall_time()) < 1
    before = one.monotonic()
    world.run_for(5)
    assert one.monotonic() - before == 5


def test_a_host_that_draws_more_does_not_change_the_ids_of_another() -> None:
    def id_of_b(draws_of_a: int) -> int:
        with World(1) as world:
            a, b = world.host("a"), world.host("b")
            for _ in range(draws_of_a):
                a.ports.rng.random()
            return b.ports.rng.getrandbits(48)

    assert id_of_b(0) == id_of_b(100)


# -- kills at every point


def steps_of_a_clean_run(seed: int) -> int:
    with World(seed) as world:
        toy = Toy(world)
        world.run_until(toy.task)
        assert toy.history.calls[0].ends[0].value == 42
        return world.steps


def kill_if_there(world: World, name: str) -> None:
    if name in world.hosts:
        world.kill(world.hosts[name])


@pytest.mark.parametrize("victim", ["server", "client"])
def test_a_kill_at_every_step_leaves_a_value_or_a_typed_error(victim: str, sim_seed: int) -> None:
    outcomes: set[str] = set()
    for step in range(steps_of_a_clean_run(sim_seed)):
        with World(sim_seed) as world:
            world.at_step(step, partial(kill_if_there, world, victim))
            try:
                toy = Toy(world)
            except SimulationStuck:  # it died before it listened
                assert not world.hosts["server"].alive
                continue
            world.run_for(30)
            if victim == "client" and not toy.client.alive:
                toy.history.caller_died("client")
            toy.check()
            check(toy.history, seed=f"{sim_seed}, step {step}")
            outcomes |= {type(end.error).__name__ for call in toy.history.calls for end in call.ends}
    if victim == "server":
        assert outcomes >= {"NoneType", "ConnectionResetError"}


@pytest.mark.parametrize("kind", ["step", "handle", "message", "time"])
def test_each_kind_of_hook_strikes_at_its_point(world: World, kind: str) -> None:
    toy, struck = Toy(world), list[tuple[float, ...]]()
    wanted: tuple[int, float]

    def strike() -> None:
        struck.append((world.steps, toy.server.loop.ran, world.messages, world.now))
        world.kill(toy.server)

    if kind == "step":
        world.at_step(world.steps + 2, strike)
        wanted = (0, world.steps + 2)
    elif kind == "handle":
        world.at_handle(toy.server, toy.server.loop.ran + 1, strike)
        wanted = (1, toy.server.loop.ran + 1)
    elif kind == "message":
        world.at_message(1, strike)
        wanted = (2, 1)
    else:
        world.at_time(world.now + 0.000_01, strike)
        wanted = (3, world.now + 0.000_01)
    world.run_until(toy.task)
    assert struck[0][wanted[0]] == wanted[1]
    assert isinstance(toy.history.calls[0].ends[0].error, OSError)


# -- a planted bug


def registry(host: Host) -> object:
    """Names are defined on one connection and used on another; nothing orders the two: the planted bug."""
    known: set[str] = set()

    def handle(connection: Connection, line: str) -> None:
        verb, name = line.split()
        if verb == "define":
            known.add(name)
        else:
            connection.send(f"{name} {'found' if name in known else 'missing'}")

    def accept(stream: Stream) -> Connection:
        connection = Connection(handle)
        connection.stream = stream
        return connection

    return host.loop.create_task(host.network.listen(ADDRESS, accept))


async def define_and_use(host: Host) -> str:
    answers: asyncio.Queue[str] = asyncio.Queue()
    connections = [Connection(lambda me, line: answers.put_nowait(line)) for _ in range(2)]
    for connection in connections:
        connection.stream = await host.network.connect(ADDRESS, connection)
    connections[0].send("define f")
    await asyncio.sleep(0.002)  # "that will be enough", says the bug
    connections[1].send("use f")
    return await answers.get()


def use_answer(seed: int) -> tuple[str, str]:
    with World(seed) as world:
        world.start("server", registry)
        world.run_until(lambda: bool(world.fabric.addresses()))
        client = world.host("client")
        return world.run_until(client.run(define_and_use(client))), world.trace.digest


def test_a_planted_ordering_bug_is_found_and_its_seed_repeats_it() -> None:
    wrong = [seed for seed in range(400) if use_answer(seed)[0] != "f found"]
    assert 1 <= len(wrong) < 40, "rare, and found all the same"
    assert use_answer(wrong[0]) == use_answer(wrong[0])


# -- faults at random


def test_the_nemesis_finds_no_wrong_answer_and_everything_ends_after_it(sim_seed: int) -> None:
    with World(sim_seed) as world:
        history = History(lambda: world.now)
        world.start("server", double_server)
        world.run_until(lambda: bool(world.fabric.addresses()))
        nemesis = Nemesis(world, victims=lambda host: True, plan=FaultPlan(gap_steps_mean=20, faults_max=8))
        nemesis.start()
        clients = [world.host(f"client-{number}") for number in range(5)]

        async def workload(host: Host) -> None:
            for number in range(20):
                await ask(host, history, number)

        tasks = [host.run(workload(host)) for host in clients]
        world.run_for(30)
        nemesis.stop()
        world.run_until(
            lambda: all(task.done() or not host.alive for task, host in zip(tasks, clients, strict=True)), 60
        )
        for host in clients:
            if not host.alive:
                history.caller_died(host.name)
        check(history, seed=sim_seed)
        oracle = values_match(lambda call: 2 * call.args[0])
        check(history, [oracle, errors_allowed(OSError)], seed=sim_seed)
        world.run_for(10)
        alive = [host for host in clients if host.alive]
        require(leftovers(world, alive).violations(), seed=sim_seed)


def test_the_nemesis_makes_every_kind_of_fault_and_heals_them() -> None:
    kinds: set[str] = set()
    for seed in range(30):
        with World(seed) as world:
            Toy(world)
            nemesis = Nemesis(world, plan=FaultPlan(gap_steps_mean=3))
            nemesis.start()
            world.run_for(10)
            nemesis.stop()
            kinds |= {fault.split()[0] for fault in nemesis.made}
            assert not any(host.paused for host in world.living())
    assert kinds == {"killed", "paused", "reset", "delayed"}


def test_a_fault_that_is_switched_off_does_not_happen() -> None:
    with World(1) as world:
        Toy(world)
        plan = FaultPlan(gap_steps_mean=2, faults_max=50, kill=0, reset=0, delay=0)
        nemesis = Nemesis(world, plan=plan)
        nemesis.start()
        world.run_for(20)
        assert {fault.split()[0] for fault in nemesis.made} <= {"paused"}


# -- leaks


def test_leftovers_name_what_is_left(world: World) -> None:
    toy = Toy(world)
    toy.client.run(asyncio.sleep(1_000), name="forgotten")
    world.run_until(toy.task)
    world.run_for(1)
    left = leftovers(world, [toy.client], ended=[toy.server])
    assert left.tasks == ["client: forgotten"]
    assert left.hosts == ["server"]
    assert left.connections == []
    assert left.addresses == ["machine-1 unix:/server.sock"]
    with pytest.raises(InvariantBroken, match="CK-7: a task is left: client: forgotten"):
        require(left.violations())


# -- the world itself


def test_the_collector_is_as_it_was_afterwards() -> None:
    assert gc.isenabled()
    with World(1) as world:
        seen: list[bool] = []
        world.host("a").loop.call_soon(lambda: seen.append(gc.isenabled()))
        world.run_for(1)
        assert (seen, gc.isenabled()) == ([False], True)
    assert gc.get_freeze_count() == 0


def test_a_closed_world_does_not_run(world: World) -> None:
    world.close()
    world.close()
    with pytest.raises(Exception, match="closed"):
        world.run_for(1)


def test_closing_many_worlds_with_killed_hosts_keeps_no_memory() -> None:
    def round_trip(seed: int) -> None:
        with World(seed) as world:
            toy = Toy(world)
            world.at_step(12, lambda: world.kill(toy.server, signal.SIGKILL))
            world.run_for(5)

    for seed in range(3):
        round_trip(seed)
    gc.collect()
    before = len(gc.get_objects())
    for seed in range(30):
        round_trip(seed)
    gc.collect()
    assert len(gc.get_objects()) - before < 500


def test_detail_keeps_handles_in_the_tail_and_does_not_change_the_digest() -> None:
    def run(detail: bool) -> tuple[str, str]:
        with World(3, detail=detail) as world:
            toy = Toy(world)
            world.run_until(toy.task)
            return world.trace.digest, world.trace.tail(500)

    plain, detailed = run(False), run(True)
    assert plain[0] == detailed[0]
    assert "client: runs " in detailed[1]
    assert "server: got 3 bytes" in plain[1]


def test_random_and_time_are_real_and_left_alone(world: World) -> None:
    """What simulated code takes from there is not repeated: the reason for `Ports.rng` and its clocks."""
    state = random.getstate()
    before = time.monotonic()
    world.run_until(world.host("a").run(asyncio.sleep(3_600)), timeout_s=3_700)
    assert random.getstate() == state
    assert time.monotonic() - before < 60
