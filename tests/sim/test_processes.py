"""Simulated processes start late, die without a word, and are missed exactly once."""

import asyncio
import signal
from collections.abc import Iterator

import pytest

from actorflow._core.io.ports import ProcessExit, WorkerSpec
from actorflow.testing import Host, ProcessProfile, SimProcesses, World


class Events:
    """A ProcessEvents that remembers, in order."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.exits: dict[str, ProcessExit] = {}
        self.output: dict[str, bytes] = {}

    def process_started(self, worker_id: str, pid: int) -> None:
        self.log.append((worker_id, "started"))

    def process_exited(self, exit: ProcessExit) -> None:
        assert exit.worker_id not in self.exits, "SP-1"
        self.exits[exit.worker_id] = exit
        self.log.append((exit.worker_id, "exited"))

    def process_output(self, worker_id: str, stream: str, data: bytes) -> None:
        self.output[worker_id] = self.output.get(worker_id, b"") + data
        self.log.append((worker_id, stream))

    def of(self, worker_id: str) -> list[str]:
        return [what for who, what in self.log if who == worker_id]


def spec(worker_id: str, **env: str) -> WorkerSpec:
    return WorkerSpec(worker_id, "job", "unix:/node.sock", f"unix:/{worker_id}.sock", env)


async def program(worker: WorkerSpec, host: Host) -> None:
    """What a worker does is said in its environment."""
    host.write_output("stdout", b"hello ")
    if "ignore_term" in worker.env:
        host.ignored_signals.add(signal.SIGTERM)
    if "polite" in worker.env:
        host.loop.add_signal_handler(signal.SIGTERM, host.exit, 0)
    await asyncio.sleep(float(worker.env.get("sleep", "1000")))
    host.write_output("stderr", b"bye")
    if "code" in worker.env:
        raise SystemExit(int(worker.env["code"]))


class Node:
    """A node's host with its processes."""

    def __init__(self, world: World, profile: ProcessProfile | None = None) -> None:
        self.world = world
        self.host = world.host("node")
        self.events = Events()
        self.processes = SimProcesses(self.host, program, profile)
        world.run_until(self.host.run(self.processes.start(self.events)))

    def spawn(self, worker_id: str, **env: str) -> None:
        self.processes.spawn(spec(worker_id, **env))

    def worker(self, worker_id: str) -> Host:
        host = self.processes.worker(worker_id)
        assert host is not None
        return host


@pytest.fixture
def node() -> Iterator[Node]:
    with World(5) as world:
        yield Node(world)


def test_a_worker_starts_after_a_while_on_the_machine_of_its_node(node: Node) -> None:
    node.spawn("w")
    assert node.processes.worker("w") is None
    node.world.run_for(1)
    assert node.events.of("w") == ["started", "stdout"]
    assert node.worker("w").machine == node.host.machine


def test_sp_2_output_comes_before_the_exit(sim_seed: int) -> None:
    with World(sim_seed) as world:
        node = Node(world)
        for number in range(10):
            node.spawn(f"w{number}", sleep="0.001")
        world.run_for(5)
        for number in range(10):
            assert node.events.of(f"w{number}") == ["started", "stdout", "stderr", "exited"]
            assert node.events.output[f"w{number}"] == b"hello bye"


def test_exit_codes_and_signals_are_told(node: Node) -> None:
    for worker_id, env in {"ends": {"sleep": "1"}, "fails": {"sleep": "1", "code": "3"}}.items():
        node.spawn(worker_id, **env)
    node.spawn("killed")
    node.world.run_for(0.5)
    node.processes.kill("killed", signal.SIGKILL)
    node.world.run_for(2)
    exits = node.events.exits
    assert (exits["ends"].exit_code, exits["ends"].signal) == (0, None)
    assert (exits["fails"].exit_code, exits["fails"].signal) == (3, None)
    assert (exits["killed"].exit_code, exits["killed"].signal) == (None, signal.SIGKILL)
    assert exits["killed"].describe() == "killed by SIGKILL"


def test_a_kill_before_the_birth_waits_for_it(node: Node) -> None:
    node.spawn("w")
    node.processes.kill("w", signal.SIGKILL)
    node.world.run_for(1)
    assert node.events.of("w") == ["started", "exited"]


def test_killing_what_is_gone_or_never_was_is_a_no_op(node: Node) -> None:
    node.spawn("w")
    node.world.run_for(1)
    for _ in range(2):
        node.processes.kill("w", signal.SIGKILL)
    node.processes.kill("nobody", signal.SIGKILL)
    node.world.run_for(1)
    node.processes.kill("w", signal.SIGKILL)
    assert node.events.of("w").count("exited") == 1
    with pytest.raises(ValueError, match="999 is not a signal"):
        node.processes.kill("w", 999)


def test_a_worker_exists_once_at_a_time(node: Node) -> None:
    node.spawn("w")
    with pytest.raises(ValueError, match="w exists already"):
        node.spawn("w")
    node.world.run_for(1)
    node.world.kill(node.worker("w"))
    node.world.run_for(1)
    node.spawn("w")
    node.world.run_for(1)
    assert node.worker("w").alive


def test_a_failed_spawn_is_an_exit_that_nobody_can_explain(node: Node) -> None:
    node.processes.fail_next_spawn()
    node.spawn("w")
    node.world.run_for(1)
    assert node.events.of("w") == ["exited"]
    assert node.events.exits["w"].describe() == "ended, cause unknown"
    node.spawn("x")
    node.world.run_for(1)
    assert node.events.of("x")[0] == "started"


def test_stop_asks_first_and_then_kills(node: Node) -> None:
    for worker_id, env in {"plain": {}, "polite": {"polite": ""}, "deaf": {"ignore_term": ""}}.items():
        node.spawn(worker_id, **env)
    node.world.run_for(1)
    before = node.world.now
    node.world.run_until(node.host.run(node.processes.stop(grace_s=2.0)))
    ends = {worker_id: (end.exit_code, end.signal) for worker_id, end in node.events.exits.items()}
    assert ends == {"plain": (None, signal.SIGTERM), "polite": (0, None), "deaf": (None, signal.SIGKILL)}
    assert 2.0 <= node.world.now - before < 2.1


def test_stop_with_spawns_under_way_leaves_nothing(sim_seed: int) -> None:
    with World(sim_seed) as world:
        node = Node(world)
        for number in range(10):
            node.spawn(f"w{number}")
            world.run_for(0.002)
        world.run_until(node.host.run(node.processes.stop(grace_s=1.0)))
        assert len(node.events.exits) == 10
        assert world.living() == [node.host]


def test_workers_outlive_a_node_that_is_killed(node: Node) -> None:
    node.spawn("w")
    node.world.run_for(1)
    node.world.kill(node.host)
    node.world.run_for(1)
    assert node.worker("w").alive
    node.world.kill(node.worker("w"))
    node.world.run_for(1)
    assert node.events.of("w") == ["started", "stdout"]


def test_spawns_fail_as_often_as_the_profile_says() -> None:
    with World(1) as world:
        node = Node(world, ProcessProfile(spawn_failure_chance=0.5))
        for number in range(40):
            node.spawn(f"w{number}")
        world.run_for(1)
        assert 5 < len(node.events.exits) < 35


def test_spawn_wants_start_first() -> None:
    with World(1) as world, pytest.raises(RuntimeError, match="before start"):
        SimProcesses(world.host("node"), program).spawn(spec("w"))
