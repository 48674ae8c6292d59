"""NC-1 to NC-3 and EW-1: what a node hands to its workers and drivers, and when it is replaced."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest

from actorflow._core.base.errors import ClusterConnectionError
from actorflow._core.boot import node_credentials as module
from actorflow._core.boot.enrolled_processes import EnrolledProcesses
from actorflow._core.boot.node_credentials import NodeCredentials
from actorflow._core.io.cluster_access import ClusterAccess, renew, security_of
from actorflow._core.io.ports import ProcessExit, WorkerSpec
from actorflow._core.io.tcp_handshake import Security
from actorflow._core.protocol.messages import ClusterKeys, Enrolled
from actorflow._core.security.authority import Authority
from actorflow._core.security.fences import Fences
from actorflow._core.security.keys import Keyring, Root
from actorflow._core.security.roles import KeyKind, Role
from actorflow._core.security.secret import Secrets

AUTHORITY = Authority.create("c", wall_time=time.time())
OLD, NEW = b"a" * 32, b"b" * 32


def keys_of(secrets: Secrets, **more: Any) -> ClusterKeys:
    roots = [root.export() for root in secrets.keyring().for_node().roots]
    return ClusterKeys(AUTHORITY.certificate_pem(), roots, **more)


class Desk:
    """Signs, when it may."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.away = False
        self.open = asyncio.Event()
        self.open.set()
        self.valid_s = 3600.0
        self.secrets = Secrets(OLD)

    async def enrol(self, job_id: str = "", request: bytes = b"") -> Enrolled:
        self.asked.append(job_id)
        await self.open.wait()
        if self.away:
            raise ClusterConnectionError("the head is away")
        name = f"job/{job_id}" if job_id else "node/n"
        certificate = AUTHORITY.issue(request, [name], wall_time=time.time(), valid_s=self.valid_s) if request else b""
        keys = keys_of(self.secrets) if not job_id else None
        return Enrolled(len(self.asked), certificate, 1, "", keys, again=f"token {len(self.asked)}")


class Handover:
    """Keeps what processes are told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ClusterAccess]] = []
        self.here: list[str] = []
        self.on_registered: Any = None
        self.on_gone: Any = None

    def names(self) -> list[str]:
        return self.here

    def tell(self, name: str, news: bytes) -> None:
        self.told.append((name, ClusterAccess.from_bytes(news)))


class World:
    def __init__(self, *, tls: bool = True) -> None:
        self.fences = Fences()
        self.security = security_of(Role.NODE, "n", Keyring(), KeyKind.NODE)
        head = security_of(Role.HEAD, "h", Keyring(), KeyKind.NODE)
        self.head: Security = head
        self.credentials = NodeCredentials("/session", [self.security, head], self.fences, tls=tls)
        self.desk = self.credentials.issuer = Desk()
        self.handover = Handover()

    async def __aenter__(self) -> World:
        await self.credentials.certify()
        self.first = self.security.server, self.security.client
        self.credentials.serve(self.handover)  # type: ignore[arg-type]
        return self

    async def __aexit__(self, *error: object) -> None:
        self.credentials.close()
        await asyncio.sleep(0)

    async def access(self, process_id: str, job_id: str) -> ClusterAccess:
        return ClusterAccess.from_bytes(await self.credentials.access(Role.WORKER, process_id, job_id))


def secret_ids(access: ClusterAccess) -> list[bytes]:
    return [key.secret_id for key in access.keys]


async def test_nc_1_a_process_gets_the_key_and_the_certificate_of_its_job() -> None:
    async with World() as world:
        one, other, foreign = [await world.access(*names) for names in (("w1", "j1"), ("w2", "j1"), ("w3", "j2"))]
        assert world.desk.asked == ["", "j1", "j2"], "one certificate for each job"
        assert one.certificate == other.certificate != foreign.certificate
        assert {(key.kind, key.subject) for key in one.keys} == {(KeyKind.JOB, "j1")}
        assert one.keys[0].material == Root.of(OLD, KeyKind.JOB).key("j1").material
        assert one.authorities == AUTHORITY.certificate_pem()
        assert one.certificate_key.hex() not in repr(one) and "PRIVATE" not in repr(one)


async def test_those_who_wait_for_one_certificate_wait_together() -> None:
    async with World() as world:
        world.desk.open.clear()
        waiting = [asyncio.create_task(world.access(f"w{number}", "j1")) for number in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        world.desk.open.set()
        assert len(await asyncio.gather(*waiting[1:])) == 4, "and one that gives up takes nobody along"
        assert world.desk.asked == ["", "j1"]


async def test_without_tls_nobody_is_asked() -> None:
    async with World(tls=False) as world:
        assert world.credentials.ready("j1")
        access = await world.access("w1", "j1")
        assert (access.authorities, access.certificate, world.desk.asked) == (b"", b"", [""])
        assert world.security.client is None


async def test_nc_2_new_keys_reach_those_who_are_here_and_those_who_come() -> None:
    async with World() as world:
        for process_id in ("here", "on its way", "gone"):
            await world.access(process_id, "j1")
        world.handover.here = ["here", "a stranger"]
        world.handover.on_gone("gone")
        world.credentials.keys_changed(keys_of(Secrets(NEW, OLD), fences=[("lost", -1)]))
        assert [name for name, _ in world.handover.told] == ["here"]
        assert secret_ids(world.handover.told[0][1]) == [Root.of(secret, KeyKind.JOB).secret_id for secret in (NEW, OLD)]
        for process_id in ("on its way", "here", "gone", "a stranger"):
            world.handover.on_registered(process_id)
        assert [name for name, _ in world.handover.told] == ["here", "on its way"], "each once, and nobody else"
        assert not world.fences.admits("lost", 5)
        assert world.security.key("head").id.secret_id == Root.of(NEW, KeyKind.NODE).secret_id
        assert world.security.terms.keyring.find(Root.of(OLD, KeyKind.NODE).key().id) is not None
        assert world.head.terms.keyring == Keyring(), "the head's own ring is not for the node to write"


async def test_the_same_keys_again_are_no_news() -> None:
    async with World() as world:
        await world.access("here", "j1")
        world.handover.here = ["here"]
        world.credentials.keys_changed(keys_of(Secrets(OLD)))
        assert world.handover.told == []


async def test_nc_3_certificates_are_renewed_and_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_DELAY_S_MIN", 0.02)
    world = World()
    world.desk.valid_s = 5.0  # So short that it is to be renewed at once: they begin ten minutes in the past.
    async with world:
        used = await world.access("here", "j1")
        world.handover.here = ["here"]
        await world.access("elsewhere", "j2")
        world.handover.on_gone("elsewhere")
        async with asyncio.timeout(20):
            while not world.handover.told or world.credentials.ready("j2"):  # What nobody uses is not renewed.
                await asyncio.sleep(0.01)
        name, renewed = world.handover.told[0]
        assert (name, renewed.job_id) == ("here", "j1")
        assert renewed.certificate not in (b"", used.certificate)
        assert world.security.server not in (None, world.first[0]) and world.head.server is world.security.server


@pytest.mark.parametrize("tls", [True, False])
async def test_the_token_to_join_once_more_is_of_the_secret_in_use(tls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RENEW_DELAY_S_MIN", "LOOK_S"):
        monkeypatch.setattr(module, name, 0.02)
    async with World(tls=tls) as world:
        await asyncio.sleep(0.1)
        assert world.credentials.again == "token 1", "and nobody is asked without need"
        world.desk.secrets = Secrets(NEW, OLD)
        world.credentials.keys_changed(keys_of(world.desk.secrets))
        async with asyncio.timeout(20):
            while world.credentials.again != "token 2":
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert world.desk.asked == ["", ""]


async def test_nc_3_what_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("RENEW_DELAY_S_MIN", "RENEW_RETRY_S"):
        monkeypatch.setattr(module, name, 0.02)
    world = World()
    world.desk.valid_s = 5.0
    async with world:
        world.desk.away = True
        async with asyncio.timeout(20):
            while "cannot be renewed" not in caplog.text:
                await asyncio.sleep(0.01)
        before = world.security.client
        assert before is not None, "what is there stays in use"
        world.desk.away = False
        async with asyncio.timeout(20):
            while world.security.client is before:
                await asyncio.sleep(0.01)


# Workers are born with it ---------------------------------------------------------------------------------------------


class Inner:
    """Processes that never are any."""

    def __init__(self) -> None:
        self.spawned: list[WorkerSpec] = []
        self.killed: list[str] = []
        self.stopped = False

    async def start(self, events: Any) -> None:
        self.events = events

    def spawn(self, spec: WorkerSpec) -> None:
        self.spawned.append(spec)

    def kill(self, worker_id: str, signal: int) -> None:
        self.killed.append(worker_id)

    def problem_with(self, env: Any, working_dir: str | None) -> str:
        return "a problem"

    def memory_bytes(self, worker_id: str) -> int:
        return 5

    async def stop(self, grace_s: float) -> None:
        self.stopped = True


class Events:
    def __init__(self) -> None:
        self.exits: list[ProcessExit] = []

    def process_exited(self, exit: ProcessExit) -> None:
        self.exits.append(exit)


class Workers:
    def __init__(self, world: World) -> None:
        self.inner, self.events = Inner(), Events()
        inner: Any = self.inner
        self.processes = EnrolledProcesses(asyncio.get_running_loop(), inner, world.credentials)

    async def start(self) -> Workers:
        events: Any = self.events
        await self.processes.start(events)
        return self


def spec(worker_id: str, job_id: str = "j1") -> WorkerSpec:
    return WorkerSpec(worker_id, job_id, "unix:/n", "unix:/w")


async def test_ew_1_the_first_worker_of_a_job_waits_and_the_next_does_not() -> None:
    async with World() as world:
        workers = await Workers(world).start()
        workers.processes.spawn(spec("w1"))
        assert workers.inner.spawned == []
        async with asyncio.timeout(10):
            while not workers.inner.spawned:
                await asyncio.sleep(0.01)
        workers.processes.spawn(spec("w2"))
        assert [ClusterAccess.from_bytes(born.access).process_id for born in workers.inner.spawned] == ["w1", "w2"]
        workers.processes.kill("w1", 9)
        assert workers.inner.killed == ["w1"]
        assert (workers.processes.problem_with({}, None), workers.processes.memory_bytes("w1")) == ("a problem", 5)


async def test_ew_1_a_worker_without_a_certificate_is_not_born() -> None:
    async with World() as world:
        world.desk.away = True
        workers = await Workers(world).start()
        workers.processes.spawn(spec("w1"))
        async with asyncio.timeout(10):
            while not workers.events.exits:
                await asyncio.sleep(0.01)
        assert "could not be started: the head is away" in workers.events.exits[0].describe()
        assert (workers.inner.spawned, len(workers.events.exits)) == ([], 1)


@pytest.mark.parametrize("how", ["kill", "kill at once", "stop"])
async def test_a_worker_that_waits_can_be_killed(how: str) -> None:
    async with World() as world:
        world.desk.open.clear()
        workers = await Workers(world).start()
        workers.processes.spawn(spec("w1"))
        if how != "kill at once":
            await asyncio.sleep(0.01)
        if how == "stop":
            await workers.processes.stop(0.0)
            assert workers.inner.stopped
        else:
            workers.processes.kill("w1", 9)
        async with asyncio.timeout(10):
            while not workers.events.exits:
                await asyncio.sleep(0.01)
        world.desk.open.set()
        await asyncio.sleep(0.05)
        assert [exit.describe() for exit in workers.events.exits] == ["could not be started: it was not wanted any more"], "PR-1"
        assert (workers.inner.spawned, workers.inner.killed) == ([], [])


def test_an_access_that_is_damaged_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    ring = Secrets(os.urandom(32)).keyring().for_job("j1")
    security = security_of(Role.WORKER, "w", ring, KeyKind.JOB, "j1")
    for news in (b"", b"rubbish", ClusterAccess(3, "w", "j1", "/", [], b"no PEM", b"x", b"y").to_bytes()):
        renew(security, news)
        assert (security.terms.keyring, security.client) == (ring, None)
    assert caplog.text.count("cannot be used, those from before stay") == 3
