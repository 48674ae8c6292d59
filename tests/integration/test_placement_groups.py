"""Placement groups on real processes: one node that has all resources. Several nodes are in test_placement_nodes.py."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest

import actorflow as af

ON_ONE_NODE = "they say which bundles fit beside each other on a node, and which devices of it they have"


def node() -> str:
    return af.get_runtime_context().node_id


@af.remote
async def where(seconds: float = 0.0) -> str:
    await asyncio.sleep(seconds)
    return node()


@af.remote(num_cpus=0, num_gpus=1)
def devices() -> str:
    return os.environ["CUDA_VISIBLE_DEVICES"]


@af.remote
def sleeper(path: str) -> None:
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)


class Place(af.Actor):
    @af.method
    async def node(self) -> str:
        return node()

    @af.method
    async def pid(self) -> int:
        return os.getpid()


async def outcome(call: Any) -> BaseException | None:
    try:
        await call
    except Exception as error:
        return error
    return None


async def free(name: str) -> float:
    return (await af.available_resources())[name]


async def comes_back(name: str, amount: float) -> None:
    """Wait until so much is free again."""
    async with asyncio.timeout(20):
        while await free(name) != amount:
            await asyncio.sleep(0.02)


async def node_with_all() -> str:
    """The one that has the CPUs: on several hosts, not that of the driver."""
    [found] = [row["node_id"] for row in await af.nodes() if row["resources"].get("CPU") == 4]
    return str(found)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_group_is_reserved_used_and_given_back(cluster: Any) -> None:
    place = await node_with_all()
    async with af.placement_group([{"CPU": 1}, {"CPU": 2, "special": 1}], name="pair") as group:
        assert await free("CPU") == 1
        assert await free("special") == 1
        assert group.bundle_specs == [{"CPU": 1}, {"CPU": 2, "special": 1}]
        assert await where.options(placement_group=group)() == place
        assert await where.options(placement_group=group, bundle_index=1, num_cpus=2, resources={"special": 1})() == place
        actor = Place.options(placement_group=group, bundle_index=0, num_cpus=1).remote()
        assert await actor.node() == place
        assert await af.get_placement_group("pair") == group
        row = next(row for row in await af.state.list_placement_groups() if row["name"] == "pair")
        assert (row["state"], row["strategy"], row["nodes"]) == ("created", "PACK", [place] * 2)
    assert isinstance(await outcome(actor.node()), af.ActorPlacementGroupRemoved)
    await comes_back("CPU", 4)
    await comes_back("special", 2)


async def test_what_runs_in_a_removed_group_ends(cluster: Any, tmp_path: Any) -> None:
    group = await af.placement_group([{"CPU": 1}, {"CPU": 1}]).ready()
    running = sleeper.options(placement_group=group, bundle_index=0).remote(str(tmp_path / "pid"))
    waiting = where.options(placement_group=group, bundle_index=0).remote()
    actor = Place.options(placement_group=group, bundle_index=1, max_restarts=5).remote()
    pids = [await actor.pid()]
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        await asyncio.sleep(0.02)
    pids.append(int((tmp_path / "pid").read_text()))
    await group.remove()
    await group.remove()
    for call in (running, waiting):
        assert isinstance(await outcome(call), af.TaskPlacementGroupRemoved)
    assert isinstance(await outcome(actor.node()), af.ActorPlacementGroupRemoved)
    await comes_back("CPU", 4)
    assert not any(map(is_alive, pids)), "their resources are back, so they are gone"


async def test_devices_of_a_bundle_are_its_own(cluster: Any) -> None:
    async with af.placement_group([{"GPU": 1}, {"GPU": 0.5}]) as group:
        whole = await devices.options(placement_group=group, bundle_index=0)()
        share = await devices.options(placement_group=group, bundle_index=1, num_gpus=0.5)()
        assert {whole, share} == {"0", "1"}
        assert await free("GPU") == 0.5
    await comes_back("GPU", 2)


async def test_a_task_may_wait_for_a_task_in_its_own_bundle(cluster: Any) -> None:
    @af.remote
    def outer(depth: int) -> int:
        if not depth:
            return 0
        return 1 + af.sync(outer.options(placement_group=mine(), bundle_index=0)(depth - 1))

    def mine() -> Any:
        return af.sync(af.get_placement_group("nested"))

    async with af.placement_group([{"CPU": 1}], name="nested") as group:
        assert await outer.options(placement_group=group, bundle_index=0)(4) == 4
    await comes_back("CPU", 4)


async def test_what_never_fits_is_said_at_once_and_what_does_not_fit_now_waits(cluster: Any) -> None:
    place = await node_with_all()
    group = af.placement_group([{"CPU": 3}, {"CPU": 9}])
    error = await outcome(group.ready())
    assert isinstance(error, af.PlacementGroupUnschedulableError)
    assert f"bundle 1 asks for 9 CPU, and the nearest node, {place}, has 4 CPU in all" in str(error)
    assert isinstance(await outcome(where.options(placement_group=group)()), af.TaskUnschedulableError)
    assert isinstance(await outcome(Place.options(placement_group=group).remote().node()), af.ActorUnschedulableError)
    await group.remove()
    first = await af.placement_group([{"CPU": 3}]).ready()
    second = af.placement_group([{"CPU": 3}])
    why = r"not ready after 0\.3 s: bundle 0 asks for 3 CPU, and the nearest node, .* has 1 CPU free"
    with pytest.raises(af.GetTimeoutError, match=why):
        await second.ready(timeout=0.3)
    assert await second.wait(0.1) is False
    task = where.options(placement_group=second).remote()
    await first.remove()
    assert await task == place
    await second.remove()
    await comes_back("CPU", 4)


async def test_names_are_one_groups_alone(cluster: Any) -> None:
    async with af.placement_group([{"CPU": 1}], name="only") as group:
        with pytest.raises(af.PlacementGroupError, match="the name 'only' in namespace 'default' belongs to placement group"):
            await af.placement_group([{"CPU": 1}], name="only").ready()
        with pytest.raises(af.PlacementGroupNotFoundError, match="'onli'.*near names: 'only'"):
            await af.get_placement_group("onli")
        assert await af.get_placement_group("only") == group
    async with af.placement_group([{"CPU": 1}], name="only"):
        pass
    await comes_back("CPU", 4)


def test_wrong_bundles_are_refused_at_the_door(cluster: Any) -> None:
    for bundles, text in (
        ([], "has no bundle"),
        ([{}], "asks for nothing"),
        ([{"CPU": 0}], "asks for nothing"),
        ({"CPU": 1}, "A list of resources is right"),
        ([{"CPU": -1}], "is negative"),
        ([{"num_cpus": 1}], "Write 'CPU'"),
        ([{"GPU": 1.5}], "a part of more than one device"),
    ):
        with pytest.raises(af.OptionError, match=text):
            af.placement_group(bundles)  # type: ignore[arg-type]
    with pytest.raises(af.OptionError, match="'PACK', 'SPREAD', 'STRICT_PACK', 'STRICT_SPREAD' are right"):
        af.placement_group([{"CPU": 1}], strategy="RANDOM")  # type: ignore[arg-type]
    with pytest.raises(af.OptionError, match="has 1 selectors for 2 bundles"):
        af.placement_group([{"CPU": 1}] * 2, bundle_label_selector=[{"zone": "a"}])
    with pytest.raises(af.OptionError, match="bundle_label_selector"):
        af.placement_group([{"CPU": 1}], bundle_label_selector={"zone": "in(a"})


async def test_children_are_captured_when_asked_to(cluster: Any) -> None:
    @af.remote
    async def takes() -> float:
        return await free("CPU")

    @af.remote
    async def parent() -> float:
        return await takes()

    class Parent(af.Actor):
        @af.method
        async def child(self) -> float:
            return await takes()

        @af.method
        def blocking(self) -> float:
            value: float = af.sync(takes())
            return value

    async with af.placement_group([{"CPU": 2}]) as group:
        captured = parent.options(placement_group=group, capture_child_tasks=True)
        assert await captured() == 2, "the child takes from the group"
        assert await parent.options(placement_group=group)() == 1, "the child takes from the node"
        await comes_back("CPU", 2)  # Its lease is kept for a moment.
        inside = Parent.options(placement_group=group, capture_child_tasks=True).remote()
        assert (await inside.child(), await inside.blocking()) == (2, 2)
        with af.context(tenant="a"):
            assert await inside.child() == 2
        outside = Parent.options(placement_group=group).remote()
        assert await outside.child() == 1
    await comes_back("CPU", 4)
