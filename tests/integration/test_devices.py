"""Code that uses accelerators, without one: simulated devices are assigned, shared, shown, hidden and given back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest

import actorflow as af

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.local_only("its devices are made up by a variable that the nodes of this process see"),
]
CLUSTER_OPTIONS: dict[str, Any] = {"num_cpus": 8, "num_gpus": None}
GPUS, CHIPS = 3, 4


@pytest.fixture(scope="module", autouse=True)
def simulated() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACTORFLOW_SIMULATED_DEVICES", "GPU:2:A100,GPU:1:T4,TPU:4:v5e")
        yield


class Gate(af.Actor):
    """Opens when so many stand before it: what passes was there at one time."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.opened = asyncio.Event()

    async def wait(self) -> None:
        self.number -= 1
        if self.number <= 0:
            self.opened.set()
        await self.opened.wait()


@af.remote(num_cpus=0)
def seen() -> tuple[str | None, str | None]:
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("TPU_VISIBLE_CHIPS")


@af.remote(num_cpus=0)
def seen_together(gate: Any, variable: str = "CUDA_VISIBLE_DEVICES") -> str:
    af.sync(gate.wait(), timeout=20)
    return os.environ[variable]


class Holder(af.Actor, num_gpus=1):
    def gpu(self) -> str:
        return os.environ["CUDA_VISIBLE_DEVICES"]

    def die(self) -> None:
        os._exit(1)


async def at_once(number: int, variable: str = "CUDA_VISIBLE_DEVICES", **options: Any) -> list[str]:
    """What so many tasks see that run at one time."""
    gate = Gate.remote(number)
    return sorted(await af.get([seen_together.options(**options).remote(gate, variable) for _ in range(number)], timeout=20))


async def test_the_node_offers_what_is_there() -> None:
    totals = await af.cluster_resources()
    assert {name: totals[name] for name in ("GPU", "TPU")} == {"GPU": GPUS, "TPU": CHIPS}
    types = {name for name in totals if name.startswith("accelerator_type:")}
    assert types == {"accelerator_type:A100", "accelerator_type:T4", "accelerator_type:v5e"}
    [node] = await af.nodes()
    assert node["labels"] == {"accelerator_type": "v5e"}, "the type of most devices"


async def test_a_task_sees_its_devices_and_no_others() -> None:
    assert await seen() == ("", "")
    assert await seen.options(num_gpus=2)() == ("0,1", "")
    assert await seen.options(resources={"TPU": 2})() == ("", "0,1")
    assert await seen.options(num_gpus=3, resources={"TPU": 4})() == ("0,1,2", "0,1,2,3")
    assert await seen() == ("", "")


async def test_a_part_of_a_hosts_chips_is_told_how_they_lie() -> None:
    @af.remote(num_cpus=0)
    def bounds() -> str | None:
        return os.environ.get("TPU_CHIPS_PER_PROCESS_BOUNDS")

    assert await bounds.options(resources={"TPU": 1})() == "1,1,1"
    assert await bounds.options(resources={"TPU": 4})() is None


async def test_whole_devices_have_one_holder() -> None:
    assert await at_once(GPUS, num_gpus=1) == ["0", "1", "2"]
    assert await at_once(2, "TPU_VISIBLE_CHIPS", resources={"TPU": 2}) == ["0,1", "2,3"]


async def test_shares_of_a_device_are_used_by_several_tasks() -> None:
    assert await at_once(6, num_gpus=0.5) == ["0", "0", "1", "1", "2", "2"]
    assert await at_once(4, num_gpus=0.25) == ["0", "0", "0", "0"], "they lie where others are, so that whole devices stay whole"
    assert await at_once(8, "TPU_VISIBLE_CHIPS", resources={"TPU": 0.5}) == sorted("01230123")


async def test_beside_a_share_a_whole_device_is_another() -> None:
    share = await Holder.options(num_gpus=0.5).remote()
    wholes = [await Holder.remote() for _ in range(2)]
    assert await share.gpu() == "0"
    assert sorted([await whole.gpu() for whole in wholes]) == ["1", "2"]
    waits = Holder.remote()
    assert (await af.available_resources())["GPU"] == 0.5
    await af.kill(share)
    assert await waits.gpu() == "0", "it has waited for the device, not for the half that was free"
    for actor in (*wholes, waits):
        await af.kill(actor)


async def test_a_device_goes_to_the_next_when_its_holder_ends() -> None:
    holders = [await Holder.remote() for _ in range(GPUS)]
    assert sorted([await holder.gpu() for holder in holders]) == ["0", "1", "2"]
    waits = Holder.remote()
    assert (await af.available_resources())["GPU"] == 0
    freed = await holders[1].gpu()
    await af.kill(holders[1])
    assert await waits.gpu() == freed
    for holder in (holders[0], holders[2], waits):
        await af.kill(holder)


async def test_devices_of_workers_that_die_come_back_exactly() -> None:
    @af.remote(num_cpus=0, max_retries=0)
    def crash() -> None:
        os._exit(1)

    shapes: list[dict[str, Any]] = [{"num_gpus": 2}, {"num_gpus": 1 / 3}, {"resources": {"TPU": 0.7}}]
    shapes.append({"num_gpus": 1, "resources": {"TPU": 3}})
    refs = [crash.options(**shape).remote() for shape in shapes * 3]
    for outcome in await asyncio.gather(*refs, return_exceptions=True):
        assert isinstance(outcome, af.WorkerCrashedError)
    actor = await Holder.remote()
    with pytest.raises(af.ActorDiedError):
        await actor.die()
    assert await at_once(GPUS, num_gpus=1) == ["0", "1", "2"]
    assert await at_once(CHIPS, "TPU_VISIBLE_CHIPS", resources={"TPU": 1}) == ["0", "1", "2", "3"]


async def test_an_actor_that_is_restarted_has_a_device_again() -> None:
    actor = await Holder.options(max_restarts=1, max_task_retries=-1).remote()
    before = await actor.gpu()
    with pytest.raises(af.ActorUnavailableError):
        await actor.die.options(max_task_retries=0)()
    assert await actor.gpu() == before
    assert (await af.available_resources())["GPU"] == GPUS - 1
    await af.kill(actor)


async def test_a_type_selects_the_devices_that_have_it() -> None:
    assert await at_once(2, num_gpus=1, accelerator_type="A100") == ["0", "1"]
    assert await seen.options(num_gpus=1, accelerator_type="T4")() == ("2", "")
    assert await seen.options(resources={"TPU": 1}, accelerator_type="v5e")() == ("", "0")
    holder = await Holder.options(accelerator_type="T4").remote()
    assert await holder.gpu() == "2"
    waits = Holder.options(accelerator_type="T4").remote()
    assert (await af.available_resources())["GPU"] == 2, "two are free, and of another type"
    await af.kill(holder)
    assert await waits.gpu() == "2"
    await af.kill(waits)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"num_gpus": 1, "accelerator_type": "H100"},
            "it asks for an accelerator of the type H100, and this node has accelerators of the type A100, T4, v5e. "
            "The nearest demand that fits: 1 GPU, an accelerator of the type A100",
        ),
        (
            {"accelerator_type": "v5p", "resources": {"TPU": 8}},
            "it asks for 8 TPU, an accelerator of the type v5p, and this node has 4 TPU in all and accelerators of the type A100, T4, v5e. "
            "The nearest demand that fits: 4 TPU, an accelerator of the type v5e",
        ),
        (
            {"num_gpus": 3, "accelerator_type": "A100"},
            "it asks for 3 GPU of the type A100, and this node has 2 GPU of it in all. "
            "The nearest demand that fits: 2 GPU, an accelerator of the type A100",
        ),
        ({"resources": {"TPU": 1.5}}, "TPU=1.5 asks for a part of more than one device"),
        ({"resources": {"tpu": 1}}, "is 'tpu' meant to be 'TPU'?"),
    ],
    ids=str,
)
async def test_what_is_not_there_is_named_with_the_nearest_that_is(options: dict[str, Any], text: str) -> None:
    with pytest.raises(af.TaskUnschedulableError) as caught:
        await seen.options(**options)()
    assert text in str(caught.value)
