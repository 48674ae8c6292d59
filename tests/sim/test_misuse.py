"""What a simulation cannot do is said at once, in words that teach."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import actorflow as af
from actorflow.testing import ALWAYS, History, SimCluster, SimulationMisuse, World, check, simulate


async def program() -> int:
    return 1


def test_a_main_is_a_coroutine_function() -> None:
    for main, words in (
        (3, "not int"),
        (program(), "not a coroutine, which runs once only: leave out the parentheses"),
        (lambda: 3, "returned int, which cannot be awaited"),
    ):
        with pytest.raises(TypeError, match=f"main must be an `async def` function.*{words}"):
            simulate(main)  # type: ignore[arg-type]
    assert simulate(lambda: program()) == 1


def test_a_cluster_runs_once() -> None:
    with World(1) as world:
        cluster = SimCluster(world)
        assert cluster.run(program) == 1
        with pytest.raises(SimulationMisuse, match="one run for each SimCluster"):
            cluster.run(program)
    with World(1) as world:
        cluster = SimCluster(world)
        assert cluster.run(program, stay=True) + cluster.run(program) == 2


def test_a_simulated_program_starts_no_real_cluster() -> None:
    async def inits() -> None:
        async with af.init(num_cpus=1):
            pass

    async def joins() -> None:
        af.init(address="127.0.0.1:1")

    async def runs() -> None:
        af.run(program)

    @af.remote
    def begins() -> None:
        af.init(num_cpus=1)

    async def lets_begin() -> None:
        await begins()

    for main in (inits, joins, runs, lets_begin):
        with pytest.raises(SimulationMisuse, match=r"af\.(init|run) in a simulated program would start or join a real"):
            simulate(main)
    assert not af.is_initialized()


def test_simulated_workers_have_no_environment_of_their_own() -> None:
    @af.remote(env_vars={"MODE": "fast"})
    def mode() -> None: ...

    @af.remote(working_dir="/")
    def place() -> None: ...

    class Moded(af.Actor, env_vars={"MODE": "fast"}):
        async def mode(self) -> None: ...

    async def main() -> list[Any]:
        moded = Moded.remote()
        return await asyncio.gather(mode(), place(), moded.mode(), return_exceptions=True)

    for error in simulate(main):
        assert isinstance(error, af.RuntimeEnvError)
        assert "env_vars and working_dir need real ones" in str(error)


def in_the_past(act: Callable[[World], object]) -> None:
    with World(1) as world:
        SimCluster(world).run(program)
        act(world)


WRONG: list[tuple[str, type[Exception], Callable[[], object], str]] = [
    ("scheme", af.OptionError, lambda: SimCluster(World(1), scheme="udp"), 'there are "unix" and "tcp"'),
    ("node option", af.OptionError, lambda: SimCluster(World(1), node_options={"memory_treshold": 1}), "NodeConfig has .*memory_threshold"),
    ("time", SimulationMisuse, lambda: in_the_past(lambda world: world.at_time(world.now / 2, print)), "is over: the world is at"),
    ("step", SimulationMisuse, lambda: in_the_past(lambda world: world.at_step(1, print)), r"at_step\(1, ...\) is over: the world is at"),
    ("hosts", SimulationMisuse, lambda: World(1).fabric.partition(["outside"], ["moon"]), "no host or machine 'moon'; hosts are outside"),
    ("one way", SimulationMisuse, lambda: World(1).fabric.cut_one_way(["moon"], ["outside"]), "no host or machine 'moon'"),
    ("check", af.OptionTypeError, lambda: check(History(lambda: 0.0), ["x"]), "a check is a function of the history, .* not str"),  # type: ignore[list-item]
    ("checks", af.OptionTypeError, lambda: check(History(lambda: 0.0), ALWAYS[0]), "a list of checks is needed"),  # type: ignore[arg-type]
    ("history", af.OptionTypeError, lambda: check([], ALWAYS), "a History is needed, not list"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("name", "kind", "act", "words"), WRONG, ids=[wrong[0] for wrong in WRONG])
def test_what_would_be_wrong_without_a_word_is_refused(name: str, kind: type[Exception], act: Callable[[], object], words: str) -> None:
    with pytest.raises(kind, match=words):
        act()


SCRIPT = """
import asyncio
import actorflow as af
from actorflow.testing import SimCluster, World

class Account(af.Actor):
    def __init__(self): self.total = 0
    async def add(self, amount): self.total += amount; return self.total

@af.remote
def twice(number): return 2 * number

@af.remote
def fails(number): raise LookupError(number)

async def main():
    try: await fails(1)
    except LookupError: pass
    account = Account.remote()
    for number in range(5): await account.add(await twice(number))
    return await account.add(0)

def digest(seed):
    with World(seed) as world:
        assert SimCluster(world).run(main) == 20
        return world.trace.digest

for seed in SEEDS: last = digest(seed)
print(last)
"""


def test_a_seed_has_one_digest_in_all_processes_also_of_classes_and_errors_of_the_script() -> None:
    """WO-1. Whatever has run before in the process, and however it hashes strings."""
    found = set()
    for seeds, hash_seed in (("[3]", "0"), ("[3]", "1"), ("[1, 2, 3]", "2")):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        script = SCRIPT.replace("SEEDS", seeds)
        found.add(subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(found) == 1
