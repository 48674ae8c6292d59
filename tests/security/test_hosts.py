"""A cluster on two and three hosts, and drivers on any of them and outside: work and calls between them, all of it under TLS."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from actorflow._core.security.wire import MAGIC
from actorflow.testing.lan import problem
from tests.security.hosts import CommandFailed, Host, Wire, hosts

pytestmark = [pytest.mark.skipif(bool(problem()), reason=problem() or "there can be hosts"), pytest.mark.timeout(300)]

WORK = """
async def main():
    places = await asyncio.gather(*(where(4.0) for _ in range(NODES)))
    counters = [await Counter.options(num_cpus=1).remote() for _ in range(NODES)]
    homes = [(await counter.add())[1] for counter in counters]
    answers = await asyncio.gather(*(use(counter) for counter in counters for _ in range(4)))
    for counter in counters:
        await af.kill(counter)
    nested = await parent(2 * NODES)
    return {"places": places, "homes": homes, "counts": sorted(value for value, _ in answers), "nested": nested}
"""


def work_on(host: Host, address: str, nodes: int, **env: str) -> dict[str, Any]:
    """Run tasks, actors and nested calls on all nodes, from this host."""
    found: dict[str, Any] = host.drive(address, WORK.replace("NODES", str(nodes)), **env)
    assert len(set(found["places"])) == nodes, "as many at one time as there are CPUs"
    assert len(set(found["homes"])) == nodes
    assert found["counts"] == sorted([2, 3, 4, 5] * nodes)
    assert len(found["nested"]) == 1 + 2 * nodes
    return found


ECHO = """
@af.remote
async def echo(text):
    await asyncio.sleep(1.0)
    return here(), text + MARK

async def main():
    return sorted({place for place, _ in await asyncio.gather(echo(MARK), echo(MARK))})
"""
MARK = "what-only-the-two-of-us-may-read"


def test_two_hosts_with_a_join_token(short_path: Path) -> None:
    with hosts(2, short_path) as (a, b):
        a.head()
        b.join(a, ACTORFLOW_TOKEN=a.token("join", "--single-use"))
        of_a = work_on(a, a.place, 2)
        of_b = work_on(b, b.place, 2)
        assert set(of_a["places"]) == set(of_b["places"])
        program = "async def main(): return await where()"
        assert b.drive("auto", program) and b.drive(a.place, program), "by no address or that of the head, as on one host"


def test_nothing_between_hosts_can_be_read_on_the_way(short_path: Path) -> None:
    """Eavesdropping: neither what users send nor keys are seen by one who listens on the cables."""
    with hosts(3, short_path) as (a, b, outside), Wire([a, b, outside]) as wire:
        a.head()
        join, client = a.token("join"), a.token("client")
        b.join(a, ACTORFLOW_TOKEN=join)
        program = ECHO.replace("MARK", repr(MARK))
        assert len(b.drive(b.place, program)) == 2
        assert len(outside.drive(a.place, program, ACTORFLOW_TOKEN=client)) == 2
        with pytest.raises(CommandFailed, match="the token has expired"):
            outside.drive(a.place, program, ACTORFLOW_TOKEN=a.token("client", "--valid-minutes", "0.001"))
        with pytest.raises(CommandFailed, match="it holds a token that lets a machine join as a node"):
            outside.drive(a.place, program, ACTORFLOW_TOKEN=join)
        with pytest.raises(CommandFailed, match="From outside the cluster's hosts it needs a client token"):
            outside.drive(a.place, program)
        assert wire.heard.count(MAGIC) > 6, "it does hear what passes"
        assert MARK.encode() not in wire.heard
        assert join.encode() not in wire.heard and client.encode() not in wire.heard


@pytest.mark.slow
def test_three_hosts_and_a_driver_outside(short_path: Path) -> None:
    with hosts(4, short_path) as (a, b, c, outside):
        a.head("--credentials", str(short_path / "secrets"))
        b.join(a, "--token-file", a.actorflow("token", "join", "--output", str(b.home / "token")).strip())
        copied = c.home / "credentials"
        copied.mkdir(mode=0o700)
        for name in ("secret", "authority.pem"):
            shutil.copy2(short_path / "secrets" / name, copied)
        c.join(a, "--credentials", str(copied))
        for host in (a, b, c):
            work_on(host, host.place, 3)
        token = a.actorflow("token", "client", "--output", str(outside.home / "token")).strip()
        work_on(outside, a.place, 3, ACTORFLOW_TOKEN_FILE=token)
        assert "ERROR" not in a.log() + b.log() + c.log()


MAKES = """
async def main():
    counter = Counter.options(name="counter", lifetime="detached", num_cpus=0).remote()
    return (await counter.add())[0]
"""
VISITS = """
class Reader(af.Actor, num_cpus=0):
    @af.method
    async def add(self, counter, lists):
        return [len(await one) for one in lists], (await counter.add())[0]

async def main():
    counter = await af.get_actor("counter")
    own = [(await counter.add())[0], (await use(counter))[0]]
    mine = [await af.put(bytes(size)) for size in (10, SIZE)]
    sizes, last = await Reader.remote().add(counter, mine)
    return [*own, last], sizes
"""


def test_an_actor_of_another_job_is_called_from_every_host_and_from_outside(short_path: Path) -> None:
    with hosts(3, short_path) as (a, b, outside):
        a.head()
        b.join(a, ACTORFLOW_TOKEN=a.token("join"))
        assert a.drive(a.place, MAKES) == 1
        count = 1
        for host, env, size in ((b, {}, 1_000_000), (a, {}, 1_000_000), (outside, {"ACTORFLOW_TOKEN": a.token("client")}, 50_000)):
            address = a.place if host is outside else host.place
            assert host.drive(address, VISITS.replace("SIZE", str(size)), **env) == [[count + 1, count + 2, count + 3], [10, size]]
            count += 3
