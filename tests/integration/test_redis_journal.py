"""A head whose journal is in a Redis: its scripts, and a cluster that loses its head, its first node and the Redis itself."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import actorflow as af
from actorflow import _nodes
from actorflow._core.boot.session_dir import sweep_stale
from actorflow._core.io.redis_log import PASSWORD_FILE_VARIABLE, Found, Held, LogTakenError
from actorflow._core.io.redis_server import RealRedis
from actorflow._core.protocol.journal_format import SCHEMA, Change, JournalDamagedError, JournalSchemaError
from actorflow._core.security.seal import Seal
from tests.integration.redis_server import RedisServer

pytestmark = pytest.mark.local_only("starts a Redis, and clusters of its own beside it")

KEY = bytes(range(32))
OPTIONS = {"num_cpus": 1.0, "memory": "1GiB", "object_store_memory": "64MiB"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.close()


class Lives:
    """Makes clients of the log of one test."""

    def __init__(self, server: RedisServer, name: str) -> None:
        self.server = server
        self.url = f"{server.url}#{name}"
        self.opened: list[RealRedis] = []

    def new(self) -> RealRedis:
        self.opened.append(RealRedis(self.url, Seal(KEY), str(self.server.password_file)))
        return self.opened[-1]

    async def take(self, holder: str = "a") -> tuple[RealRedis, Found]:
        life = self.new()
        found = await life.take(holder, 60)
        assert isinstance(found, Found)
        return life, found


@pytest.fixture
async def lives(server: RedisServer, request: pytest.FixtureRequest) -> AsyncIterator[Lives]:
    lives = Lives(server, request.node.name)
    yield lives
    for life in lives.opened:
        await life.close()


def put(key: str, value: bytes | None) -> Change:
    return Change("actor", key, value)


async def test_what_was_written_is_found_by_the_next_life(lives: Lives) -> None:
    first, (grant, state, last) = await lives.take()
    assert (state, last) == ({}, 0)
    odd = "ключ\0 with a zero byte"
    changes = [put("x", b"1"), put(odd, bytes(range(256))), put("y", b"2"), put("y", None), put("z", b"3")]
    assert await first.write(grant, 1, 2, changes) == 2
    assert await first.write(grant, 3, 3, [put("z", None), put("gone long ago", None)]) == 3
    _, (again, state, last) = await lives.take()
    assert again.token > grant.token
    assert (state, last) == ({("actor", "x"): b"1", ("actor", odd): bytes(range(256))}, 3)


async def test_rg_1_a_write_that_is_said_twice_counts_once(lives: Lives) -> None:
    life, (grant, _, _) = await lives.take()
    assert await life.write(grant, 1, 1, [put("x", b"1")]) == 1
    assert await life.write(grant, 2, 2, [put("x", b"2")]) == 2
    assert await life.write(grant, 2, 2, [put("x", b"2")]) == 2
    assert await life.write(grant, 1, 1, [put("x", b"1")]) == 2, "what is older than what is there changes nothing"
    assert (await lives.take())[1].state == {("actor", "x"): b"2"}


async def test_rg_2_an_earlier_life_is_refused_whatever_it_says(lives: Lives) -> None:
    old, (grant, _, _) = await lives.take()
    new, (following, _, _) = await lives.take()
    for said in (old.write(grant, 1, 1, [put("x", b"1")]), old.replace(grant, 5, {("actor", "x"): b"1"}), old.renew(grant, 60)):
        with pytest.raises(LogTakenError, match="another head has taken this log"):
            await said
    await old.release(grant)
    assert isinstance(await lives.new().take("b", 60), Held), "only who has a lease gives it back"
    assert await new.write(following, 1, 1, [put("y", b"2")]) == 1
    assert (await lives.take())[1].state == {("actor", "y"): b"2"}


async def test_rg_3_a_redis_that_has_forgotten_all_says_so_and_takes_the_state_anew(lives: Lives) -> None:
    life, (grant, _, _) = await lives.take()
    assert await life.write(grant, 1, 5, [put("x", b"1")]) == 5
    await life._redis.flushdb()
    assert await life.write(grant, 6, 6, [put("y", b"2")]) == 0
    state = {("actor", f"{number}"): os.urandom(1 << 20) for number in range(40)}
    await life.replace(grant, 6, state)
    assert await life.write(grant, 7, 7, [put("0", None)]) == 7
    await life.renew(grant, 60)
    _, found = await lives.take()
    del state["actor", "0"]
    assert (found.state, found.last) == (state, 7)
    assert await life._redis.keys(f"{{{lives.url.partition('#')[2]}}}:new:*") == []
    await life.replace(found.grant._replace(token=99, life=life._life), 8, {})
    assert (await lives.take())[1][1:] == ({}, 8)


async def test_rg_4_who_has_a_lease_keeps_others_out_until_it_is_over(lives: Lives) -> None:
    life, (grant, _, _) = await lives.take("a")
    held = await lives.new().take("b", 60)
    assert isinstance(held, Held)
    assert held.holder == "a"
    assert 50 < held.left_s <= 60
    await life.renew(grant, 0.05)
    async with asyncio.timeout(5):
        while isinstance(await lives.new().take("b", 60), Held):
            await asyncio.sleep(0.01)
    with pytest.raises(LogTakenError):
        await life.renew(grant, 60)


async def test_a_later_schema_is_refused(lives: Lives) -> None:
    life, _ = await lives.take()
    await life._redis.hset(life._keys[1], "schema", SCHEMA + 1)
    with pytest.raises(JournalSchemaError, match=f"has schema {SCHEMA + 1}, .* start the head with the version that wrote it"):
        await lives.take()


async def test_what_is_there_can_be_neither_read_nor_changed_by_who_operates_it(lives: Lives) -> None:
    life, (grant, _, _) = await lives.take()
    await life.write(grant, 1, 1, [put("a", b"pickled code"), put("b", b"other code")])
    raw = await life._redis.hgetall(life._keys[2])
    assert all(b"code" not in value for value in raw.values())
    await life._redis.hset(life._keys[2], b"actor\0a", raw[b"actor\0b"])
    await life.release(grant)
    for holder in ("b", "c"):  # The lease is given back with the error.
        with pytest.raises(JournalDamagedError, match="sealed with the key of another cluster, or has been changed"):
            await lives.take(holder)


async def test_a_redis_that_throws_keys_away_is_refused(lives: Lives) -> None:
    life = lives.new()
    await life._redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(OSError, match="throws keys away when its memory is full .maxmemory-policy allkeys-lru"):
            await life.take("a", 60)
    finally:
        await life._redis.config_set("maxmemory-policy", "noeviction")


async def test_one_that_is_not_there_or_wants_another_password_is_an_error(lives: Lives, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    seal = Seal(KEY)
    for life in (RealRedis("redis://127.0.0.1:1", seal), RealRedis(lives.url, seal, str(wrong)), RealRedis(lives.url, seal)):
        with pytest.raises(ConnectionError, match=r"127.0.0.1:1|invalid username-password|Authentication required"):
            await life.take("a", 60)
        await life.close()


# -- clusters


class Counter(af.Actor, max_restarts=-1, num_cpus=0):
    def __init__(self) -> None:
        self.value = 0

    async def add(self) -> int:
        self.value += 1
        return self.value


@pytest.fixture
def own_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    monkeypatch.setenv(PASSWORD_FILE_VARIABLE, str(server.password_file))
    yield server
    _nodes.stop()
    sweep_stale(age_s=0)
    server.close()


def head_of(node: _nodes.StartedNode) -> int:
    """Its process."""
    for child in Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split():
        if Path(f"/proc/{child}/comm").read_text().strip() == "actorflow-head":
            return int(child)
    raise AssertionError("no head runs there")


async def test_the_head_the_first_node_and_the_redis_are_killed(own_redis: RedisServer, tmp_path: Path) -> None:
    places = {"credentials": str(tmp_path / "credentials"), "journal": f"{own_redis.url}#shop"}
    first = _nodes.start(port=0, **places, **OPTIONS)
    port = int(first.tcp.rpartition(":")[2])
    second = _nodes.start(address=first.tcp, resources={"disk": 2}, **OPTIONS)
    async with af.init(address=second.tcp, namespace="shop"):
        counter = await Counter.options(name="counter", lifetime="detached", resources={"disk": 1}).remote()
        assert await counter.add() == 1
        assert b"of-the-tests" not in Path(f"/proc/{head_of(first)}/cmdline").read_bytes()

        os.kill(head_of(first), signal.SIGKILL)
        assert await counter.add() == 2
        async with asyncio.timeout(10):
            assert await (await af.get_actor("counter")).add() == 3

        own_redis.close()
        late = asyncio.ensure_future(Counter.options(name="late", resources={"disk": 1}).remote())
        for number in range(50):
            assert await counter.add() == 4 + number, "no call passes the head"
        assert not late.done(), "what is not written down is not acknowledged"
        own_redis.start()
        async with asyncio.timeout(20):
            assert await (await late).add() == 1

        os.kill(first.pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitpid, first.pid, 0)
        assert await counter.add() == 54
        first = _nodes.start(port=port, **places, **OPTIONS)
        async with asyncio.timeout(20):
            assert await (await af.get_actor("counter")).add() == 55, "it has lived on"


def test_two_clusters_do_not_share_a_log_and_the_second_says_whose_it_is(own_redis: RedisServer) -> None:
    _nodes.start(port=0, journal=own_redis.url, **OPTIONS)
    with pytest.raises(
        af.ClusterStartError, match="keeps its state there and is alive: end that cluster, or give this one another name behind #"
    ):
        _nodes.start(port=0, journal=own_redis.url, **OPTIONS)
    _nodes.start(port=0, journal=f"{own_redis.url}#another", **OPTIONS)


def test_a_log_of_other_credentials_is_refused_and_the_error_says_what_to_give(own_redis: RedisServer) -> None:
    _nodes.start(port=0, journal=own_redis.url, **OPTIONS)
    _nodes.stop()
    with pytest.raises(af.ClusterStartError, match="Give the directory of the credentials that the cluster was created with"):
        _nodes.start(port=0, journal=own_redis.url, **OPTIONS)


def test_a_redis_that_is_not_there_is_named_at_the_start(own_redis: RedisServer) -> None:
    own_redis.close()
    with pytest.raises(af.ClusterStartError, match=r"the head cannot start: its journal is in redis://127.0.0.1:\d+/0, and that says: "):
        _nodes.start(port=0, journal=own_redis.url, **OPTIONS)


def test_a_password_file_that_is_not_there_is_named_at_the_start(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_FILE_VARIABLE, "/nowhere/password")
    with pytest.raises(af.ClusterStartError, match="FILE=/nowhere/password: No such file or directory; it should name the file with the"):
        _nodes.start(port=0, journal=own_redis.url, **OPTIONS)


def test_a_redis_that_throws_keys_away_is_named_at_the_start(own_redis: RedisServer) -> None:
    own_redis.close()
    own_redis.settings += ("--maxmemory-policy", "allkeys-lru")
    own_redis.start()
    with pytest.raises(af.ClusterStartError, match="the head cannot start: .* throws keys away when its memory is full"):
        _nodes.start(port=0, journal=own_redis.url, **OPTIONS)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://somewhere", "http:// is not known; a directory is, and a Redis: redis://, rediss://, unix://"),
        ("redis://me:secret@somewhere/0", "everybody on this machine could see the password in the URL: write it into a file"),
        ("redis:///0", "it names no Redis; expected for example redis://10.0.0.7:6379/0#production"),
    ],
)
def test_a_url_that_cannot_be_is_an_option_error(url: str, said: str) -> None:
    with pytest.raises(af.OptionError) as caught:
        _nodes.start(port=0, journal=url, **OPTIONS)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(af.OptionError, match=r'pip install "actorflow\[redis\]"'):
        _nodes.start(port=0, journal="redis://somewhere", **OPTIONS)
