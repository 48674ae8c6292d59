"""What type checkers must report: every line that says so, and no other. Read by test_types.py, never run."""

from good import Counter, square, tokens

import actorflow as af


async def functions() -> None:
    await square("x")  # wrong
    square.remote("x")  # wrong
    square.remote(3, scal=2)  # wrong
    square.remote()  # wrong
    await square.submit("x")  # wrong
    square(3)  # wrong: nobody awaits it
    square.options(num_cpu=3)  # wrong
    square.options(num_cpus="3")  # wrong
    await tokens(3)  # wrong: a stream


async def actors(counter: Counter) -> None:
    Counter.remote("x")  # wrong
    Counter.options(nam="x")  # wrong
    Counter.options(name="x").remote("x")  # wrong
    counter.add.remote("x")  # wrong
    await counter.add(bye=2)  # wrong
    counter.nope.remote()  # wrong
    counter.plain.remote(2)  # wrong: only @af.method gives types to .remote
    counter.add.options(timout=3)  # wrong


async def groups(counter: Counter, tg: af.TaskGroup) -> None:
    tg.submit(square, "x")  # wrong
    tg.submit(len, "x")  # wrong
    af.map(square, ["x"])  # wrong
    af.map(tokens, [1])  # wrong
    af.nope()  # wrong
    af.context(tenant=3)  # wrong
    af.context.current()["tenant"] = "a"  # wrong


async def placement(group: af.PlacementGroup) -> None:
    af.placement_group({"CPU": 1})  # wrong
    af.placement_group([{"CPU": 1}], strategy="RANDOM")  # wrong
    af.placement_group([{"CPU": 1}], lifetime="for ever")  # wrong
    af.placement_group([{"CPU": 1}], nam="x")  # wrong
    square.options(placement_group="group")  # wrong
    square.options(placement_group=group, bundle_index="0")  # wrong
    await group.ready(3)  # wrong
    group.remov()  # wrong


class Bad(af.Actor, max_restart=3):  # wrong
    pass


class Worse(af.Actor, process="thread"):  # wrong
    pass


@af.remote(num_cpuz=3)  # wrong
def misspelt() -> int:
    return 1


@af.remote(num_cpus="3")  # wrong
def mistyped() -> int:
    return 1
