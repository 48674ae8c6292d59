"""A run: the nodes, the program, the faults of the schedule at their moments, and the end. What happened comes back as a Story."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from actorflow.testing import machine
from actorflow.testing.chaos.records import Harm, Story, read_lines, read_notes, read_told
from actorflow.testing.chaos.schedule import LASTING, Fault, Kind
from actorflow.testing.chaos.systems import Machines, Member, machines_of

START_S = 120.0
SETTLE_S = 3.0
"""How long the program goes on after the last fault is over."""
GONE_S = 20.0
"""After the end of the cluster everything is gone within this time."""
POLL_S = 0.05
T = TypeVar("T")
ERRORS_CHARS = 4000


class Plan(NamedTuple):
    """What a run is made of. `back_s`: so long after the death of a node another one joins. `hang_s`: a call that takes longer has hung."""

    system: str
    seed: int
    seconds: float
    nodes: int
    cpus: int
    faults: list[Fault]
    back_s: float
    hang_s: float
    comparable: bool
    """Only the work that every system has."""


class ChaosError(Exception):
    """The run could not be made."""


async def conduct(plan: Plan, say: Callable[[str], None]) -> Story:
    """Do it. `say` is told what happens as it happens. Raises ChaosError."""
    machines = machines_of(plan.system)
    # Not below TMPDIR: paths of sockets have room for about a hundred characters.
    with tempfile.TemporaryDirectory(prefix="afc-", dir="/tmp", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        os.environ[machine.VARIABLE] = name
        memory = machine.shared_memory(directory)
        left: list[str] = []
        try:
            address = await _started(machines, plan, directory)
            say(f"{plan.nodes} nodes of {plan.system} are up")
            async with _program(plan, address, directory) as program:
                began = time.monotonic()
                harms = await _Hands(machines, plan, say).strike(began, program)
                ended = time.monotonic()
                say("the program ends")
                problem = await _ended(program, plan, directory)
        finally:
            left += await machines.close()
            left += await asyncio.to_thread(_left_behind, directory, memory)
        lines = read_lines(directory / "told")
        calls, accounts, wrong, hung = read_told(lines)
        left += [f"in the cluster: {what}" for line in lines for what in line.get("left", ())]
        if problem:
            hung.append(problem)
        notes = read_notes(read_lines(directory / "ledger"))
        return Story(calls, notes, harms, accounts, wrong, hung, left, began, ended)


async def _started(machines: Machines, plan: Plan, directory: Path) -> str:
    try:
        return await machines.start(plan.nodes, plan.cpus, directory)
    except Exception as error:
        raise ChaosError(f"the nodes did not start: {type(error).__name__}: {error}") from error


@contextlib.asynccontextmanager
async def _program(plan: Plan, address: str, directory: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    (directory / "ledger").touch()
    told = {
        "system": plan.system, "address": address, "seed": plan.seed, "hang_s": plan.hang_s,
        "comparable": plan.comparable,
        "ledger": str(directory / "ledger"), "book": str(directory / "told"),
    }  # fmt: skip
    with (directory / "errors").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "actorflow.testing.chaos.driver", json.dumps(told),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                while (line := await process.stdout.readline()) != b"ready\n":
                    if not line:
                        raise ChaosError(f"the program did not start: {_errors(directory)}")
        except TimeoutError:
            raise ChaosError(f"the program did not start within {START_S:g} s: {_errors(directory)}") from None
        swallowing = asyncio.create_task(_swallow(process.stdout))
        try:
            yield process
        finally:
            swallowing.cancel()
            await asyncio.wait([swallowing])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _swallow(out: asyncio.StreamReader) -> None:
    """What a library prints there for people: unread, it would stop its writer, and nobody would see the end of the program."""
    while await out.read(1 << 16):
        pass


async def _ended(program: asyncio.subprocess.Process, plan: Plan, directory: Path) -> str:
    """Tell the program to end, and wait for it; says what is wrong with its end."""
    assert program.stdin is not None
    with contextlib.suppress(ConnectionError):  # It has ended already: its code is looked at.
        program.stdin.write(b"end\n")
        await program.stdin.drain()
    end_s = 2 * plan.hang_s + 60
    try:
        code = await asyncio.wait_for(program.wait(), end_s)
    except TimeoutError:
        return f"the program did not end within {end_s:g} s: {_errors(directory)}"
    return f"the program ended with {code}: {_errors(directory)}" if code else ""


def _errors(directory: Path) -> str:
    return (directory / "errors").read_text(errors="replace")[-ERRORS_CHARS:].strip() or "it said nothing"


def _left_behind(directory: Path, memory: set[str]) -> list[str]:
    """What is there after the end, in words; it is removed."""
    give_up_at = time.monotonic() + GONE_S
    while (left := machine.leftovers_of(directory)) and time.monotonic() < give_up_at:
        time.sleep(POLL_S)
    left += [f"/dev/shm/{name}" for name in sorted(machine.shared_memory(directory) - memory)]
    machine.send(machine.processes_of(directory), signal.SIGKILL)
    return left


class _Hands:
    """Does what the schedule says, to whom it finds."""

    def __init__(self, machines: Machines, plan: Plan, say: Callable[[str], None]) -> None:
        self._machines = machines
        self._plan = plan
        self._say = say
        self._began = 0.0
        self._harms: list[Harm] = []
        self._returning: set[asyncio.Task[None]] = set()

    async def strike(self, began: float, program: asyncio.subprocess.Process) -> list[Harm]:
        """All faults at their moments, and their ends. A program that has ended by itself is not waited for."""
        self._began = began
        ended = asyncio.create_task(program.wait())
        try:
            async with asyncio.TaskGroup() as group:
                for fault in self._plan.faults:
                    if not await self._until(fault.at_s, ended):
                        break
                    group.create_task(self._do(fault))
                else:
                    await self._until(self._plan.seconds, ended)
            await asyncio.gather(*self._returning)
            if not ended.done():
                await asyncio.wait([ended], timeout=SETTLE_S)
        finally:
            ended.cancel()
            for task in self._returning:
                task.cancel()
        return self._harms

    async def _until(self, at_s: float, ended: asyncio.Task[int]) -> bool:
        await asyncio.wait([ended], timeout=max(0.0, self._began + at_s - time.monotonic()))
        return not ended.done()

    async def _do(self, fault: Fault) -> None:
        if fault.kind is Kind.KILL_HEAD:
            await self._kill_head(fault)
            return
        victim = self._victim(fault)
        if victim is None:
            self._say(f"{fault.at_s:6.1f} s  {fault.kind}: nobody is there for it")
            return
        member, pid = victim
        pids = tuple([pid] if pid else member.pids())
        lasting = f" for {fault.seconds:.1f} s" if fault.seconds else ""
        self._say(f"{fault.at_s:6.1f} s  {fault.kind}: {member.name}{f', process {pid}' if pid else ''}{lasting}")
        at = time.monotonic()
        if fault.kind is Kind.KILL_WORKER:
            machine.send(pids, signal.SIGKILL)
        elif fault.kind is Kind.KILL_NODE:
            await self._machines.kill(member)
            self._returns()
        elif fault.kind in (Kind.STOP_WORKER, Kind.STOP_NODE):
            await self._stop(pids, fault.seconds)
        elif fault.kind is Kind.RESET:
            await self._machines.reset(member)
        elif fault.kind is Kind.PARTITION:
            await self._machines.cut(member)
            try:
                await asyncio.sleep(fault.seconds)
            finally:
                await self._machines.heal(member)
        until = time.monotonic() if fault.kind in LASTING else at
        self._harms.append(Harm(fault.number, fault.kind, at, until, pids, member.name))

    async def _kill_head(self, fault: Fault) -> None:
        at = time.monotonic()
        pid = await self._machines.kill_head()
        self._say(f"{fault.at_s:6.1f} s  {fault.kind}: process {pid}")
        self._harms.append(Harm(fault.number, fault.kind, at, at, (pid,), "head"))

    def _victim(self, fault: Fault) -> tuple[Member, int] | None:
        members = self._machines.members()
        if fault.kind in (Kind.KILL_WORKER, Kind.STOP_WORKER):
            workers = [(member, pid) for member in members for pid in member.workers()]
            return _picked(workers, fault.pick)
        # The first node has the program, without which nothing is left to look at.
        member = _picked([member for member in members if not member.first], fault.pick)
        return None if member is None else (member, 0)

    async def _stop(self, pids: tuple[int, ...], seconds: float) -> None:
        births = {pid: machine.birth_of(pid) for pid in pids}
        machine.send(pids, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            machine.send([pid for pid, birth in births.items() if birth and machine.birth_of(pid) == birth], signal.SIGCONT)

    def _returns(self) -> None:
        async def later() -> None:
            await asyncio.sleep(self._plan.back_s)
            await self._machines.add()

        self._returning.add(asyncio.create_task(later()))


def _picked(among: list[T], pick: float) -> T | None:
    return among[int(pick * len(among))] if among else None
