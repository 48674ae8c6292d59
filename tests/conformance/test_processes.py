"""The contract of Processes and ProcessEvents."""

import signal

import pytest

from actorflow._core.io.ports import WorkerSpec
from tests.conformance.worlds import Events, ProcessWorld

FOR_EVER = "1000"


def spec(worker_id: str, **env: str) -> WorkerSpec:
    return WorkerSpec(worker_id, "job", "unix:/node.sock", f"unix:/{worker_id}.sock", env)


async def started(world: ProcessWorld) -> Events:
    events = Events()
    await world.processes.start(events)
    return events


def test_a_life_is_told_in_order(process_world: ProcessWorld) -> None:
    async def scenario() -> None:
        events = await started(process_world)
        process_world.processes.spawn(spec("w1", SAY="hello", SAY_LAST="good bye", CODE="3"))
        assert events.log == []
        await events.until(lambda: "w1" in events.exits)
        told = events.of("w1")
        assert (told[0], told[-1]) == ("started", "exited")
        assert events.output == {("w1", "stdout"): b"hello\n", ("w1", "stderr"): b"good bye\n"}
        end = events.exits["w1"]
        assert (end.exit_code, end.signal, end.pid) == (3, None, events.pids["w1"])
        assert end.peak_memory_bytes > 1_000_000
        assert end.describe() == "exited with code 3"

    process_world.run(scenario())


def test_killed_by_a_signal(process_world: ProcessWorld) -> None:
    async def scenario() -> None:
        events = await started(process_world)
        process_world.processes.spawn(spec("w1", READY="1", SLEEP=FOR_EVER))
        await events.until(events.said("w1", b"READY"))
        process_world.processes.kill("w1", signal.SIGKILL)
        await events.until(lambda: "w1" in events.exits)
        assert (events.exits["w1"].exit_code, events.exits["w1"].signal) == (None, signal.SIGKILL)
        assert events.exits["w1"].describe() == "killed by SIGKILL"

    process_world.run(scenario())


def test_the_memory_of_a_worker_is_told_while_it_lives(process_world: ProcessWorld) -> None:
    async def scenario() -> None:
        events = await started(process_world)
        processes = process_world.processes
        assert processes.memory_bytes("w1") == 0
        processes.spawn(spec("w1", READY="1", SLEEP=FOR_EVER))
        await events.until(events.said("w1", b"READY"))
        assert 1_000_000 < processes.memory_bytes("w1") < 1_000_000_000
        processes.kill("w1", signal.SIGKILL)
        await events.until(lambda: "w1" in events.exits)
        assert processes.memory_bytes("w1") == 0

    process_world.run(scenario())


def test_a_kill_right_after_the_spawn_is_not_lost(process_world: ProcessWorld) -> None:
    async def scenario() -> None:
        events = await started(process_world)
        process_world.processes.spawn(spec("w1", SLEEP=FOR_EVER))
        process_world.processes.kill("w1", signal.SIGKILL)
        await events.until(lambda: "w1" in events.exits)
        assert events.exits["w1"].signal == signal.SIGKILL

    process_world.run(scenario())


def test_what_a_worker_needs_nothing_for_is_no_problem(process_world: ProcessWorld) -> None:
    async def scenario() -> None:
        await started(process_world)
        assert process_world.processes.problem_with({"A": "1"}, None) == ""
        assert process_world.processes.problem_with({}, "/") == ""

    process_world.run(scenario())


def test_a_signal_to_nobody_does_nothing(process_world: ProcessWorld) -> None:
    async def scenario() -> None:
        events = await started(process_world)
        process_world.processes.kill("w0", signal.SIGKILL)
        process_world.processes.spawn(spec("w1"))
        await events.until(lambda: "w1" in events.exits)
        process_world.processes.kill("w1", signal.SIGKILL)
        process_world.processes.spawn(spec("w2"))
        await events.until(lambda: "w2" in events.exits)
        assert [end.exit_code for end in events.exits.values()] == [0, 0]

    process_world.run(scenario())


def test_what_is_no_signal_is_refused(process_world: ProcessWorld) -> None:
    async def scenario() -> None:
        await started(process_world)
        with pytest.raises(ValueError, match="not a signal"):
            process_world.processes.kill("w1", 12_345)

    process_world.run(scenario())


def test_a_worker_exists_once(process_world: ProcessWorld) -> None:
    async def scenario() -> None:
        events = await started(process_world)
        process_world.processes.spawn(spec("w1"))
        with pytest.raises(ValueError, match="exists already"):
            process_world.processes.spawn(spec("w1"))
        await events.until(lambda: "w1" in events.exits)

    process_world.run(scenario())


def test_nothing_is_spawned_before_the_start(process_world: ProcessWorld) -> None:
    async def scenario() -> None:
        with pytest.raises(RuntimeError, match="before start"):
            process_world.processes.spawn(spec("w1"))

    process_world.run(scenario())


def test_of_many_spawns_each_ends_once(process_world: ProcessWorld) -> None:
    async def scenario() -> None:
        events = await started(process_world)
        names = [f"w{number}" for number in range(80)]
        for number, name in enumerate(names):
            process_world.processes.spawn(spec(name, SAY=name, CODE=str(number)))
        await events.until(lambda: len(events.exits) == len(names))
        assert [events.exits[name].exit_code for name in names] == list(range(80))
        assert all(events.output[name, "stdout"] == f"{name}\n".encode() for name in names)
        assert len(set(events.pids.values())) == len(names)

    process_world.run(scenario())


# -- the end


def test_stop_asks_first(process_world: ProcessWorld) -> None:
    async def scenario() -> None:
        events = await started(process_world)
        for name in ("w1", "w2"):
            process_world.processes.spawn(spec(name, POLITE="5", READY="1", SLEEP=FOR_EVER))
        await events.until(lambda: events.said("w1", b"READY")() and events.said("w2", b"READY")())
        await process_world.processes.stop(10.0)
        assert [end.exit_code for end in events.exits.values()] == [5, 5]

    process_world.run(scenario())


def test_stop_kills_who_does_not_listen(process_world: ProcessWorld) -> None:
    async def scenario() -> None:
        events = await started(process_world)
        process_world.processes.spawn(spec("deaf", IGNORE="1", READY="1", SLEEP=FOR_EVER))
        await events.until(events.said("deaf", b"READY"))
        await process_world.processes.stop(0.05)
        assert events.exits["deaf"].signal == signal.SIGKILL

    process_world.run(scenario())


def test_stop_ends_what_is_only_just_starting(process_world: ProcessWorld) -> None:
    async def scenario() -> None:
        events = await started(process_world)
        names = {f"w{number}" for number in range(50)}
        for name in names:
            process_world.processes.spawn(spec(name, SLEEP=FOR_EVER))
        await process_world.processes.stop(5.0)
        assert set(events.exits) == names

    process_world.run(scenario())


def test_what_is_spawned_after_the_stop_ends_at_once(process_world: ProcessWorld) -> None:
    async def scenario() -> None:
        events = await started(process_world)
        await process_world.processes.stop(0.0)
        process_world.processes.spawn(spec("late", SLEEP=FOR_EVER))
        await events.until(lambda: "late" in events.exits)
        end = events.exits["late"]
        assert (end.exit_code, end.signal, events.pids) == (None, None, {})

    process_world.run(scenario())
