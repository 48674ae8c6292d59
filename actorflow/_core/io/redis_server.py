"""The real Redis of a `RedisLog`: three keys, and scripts that look at the token before they do anything.

    {NAME}:lease    who has the log, for as long as its lease runs
    {NAME}:meta     schema, token and life of who took it last, number of the last write; `seal`, which only this cluster's head can open
    {NAME}:state    a field "KIND\\0KEY" for each entry, its value sealed (security/seal.py): what is there runs as code in the cluster

The braces keep them in one slot of a Redis Cluster. NAME is what stands behind # in the URL. What Redis has answered is as durable as its
own settings make it (appendonly, appendfsync); one that would throw the state away to make room is refused.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from actorflow._core.io.redis_log import Found, Grant, Held, LogTakenError
from actorflow._core.io.state_log import State
from actorflow._core.protocol.journal_format import SCHEMA, Change, JournalDamagedError, JournalSchemaError, migrated
from actorflow._core.security.errors import CredentialError
from actorflow._core.security.seal import Seal

log = logging.getLogger(__name__)

NAME = "actorflow"
SEAL = b"whose log this is"
ANSWER_TIMEOUT_S = 5.0
CHUNK_BYTES = 16 << 20
NEW_KEPT_S = 3_600
"""A state that was not brought to its end goes away after that."""

_LOOK = """
local function look(token, life, holder)
  local there = tonumber(redis.call('HGET', KEYS[2], 'token') or '0')
  if there > token or (there == token and redis.call('HGET', KEYS[2], 'life') ~= life) then return 'taken' end
  if there == token then return 'mine' end
  local held = redis.call('GET', KEYS[1])
  if held and held ~= holder then return 'taken' end
  return 'forgotten'
end
local seen = look(tonumber(ARGV[1]), ARGV[2], ARGV[3])
if seen == 'taken' then return -1 end
"""
_TAKE = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return {'held', held, redis.call('PTTL', KEYS[1])} end
local schema = tonumber(redis.call('HGET', KEYS[2], 'schema') or ARGV[4])
if schema > tonumber(ARGV[4]) then return {'later', schema} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
local token = redis.call('HINCRBY', KEYS[2], 'token', 1)
redis.call('HSET', KEYS[2], 'life', ARGV[2], 'schema', schema)
redis.call('HSETNX', KEYS[2], 'seal', ARGV[5])
local seal = redis.call('HGET', KEYS[2], 'seal')
return {'found', token, schema, redis.call('HGET', KEYS[2], 'number') or '0', seal, redis.call('HGETALL', KEYS[3])}
"""
_WRITE = (
    _LOOK
    + """
local there = tonumber(redis.call('HGET', KEYS[2], 'number') or '0')
if seen == 'forgotten' or there ~= tonumber(ARGV[4]) - 1 then return there end
local at, sets = 7, tonumber(ARGV[6])
for _ = 1, sets do
  redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 1])
  at = at + 2
end
for i = at, #ARGV do redis.call('HDEL', KEYS[3], ARGV[i]) end
redis.call('HSET', KEYS[2], 'number', ARGV[5])
return tonumber(ARGV[5])
"""
)
_REPLACE = (
    _LOOK
    + """
if redis.call('EXISTS', KEYS[4]) == 1 then redis.call('RENAME', KEYS[4], KEYS[3]) else redis.call('DEL', KEYS[3]) end
redis.call('PERSIST', KEYS[3])
redis.call('HSET', KEYS[2], 'token', ARGV[1], 'life', ARGV[2], 'number', ARGV[4], 'schema', ARGV[5])
return 0
"""
)
_RENEW = (
    _LOOK
    + """
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
return tonumber(redis.call('HGET', KEYS[2], 'number') or '0')
"""
)
_RELEASE = (
    _LOOK
    + """
redis.call('DEL', KEYS[1])
return 0
"""
)


class RealRedis:
    """See RedisServer. `url`: redis://, rediss:// or unix://, with the name of the log behind #. `password_file` has the password in it."""

    def __init__(self, url: str, seal: Seal, password_file: str = "") -> None:
        parts = urlsplit(url)
        name = parts.fragment or NAME
        self.where = urlunsplit(parts)
        password = Path(password_file).read_text().strip() if password_file else None
        self._redis: Redis = Redis.from_url(
            urlunsplit(parts._replace(fragment="")),
            password=password,
            socket_timeout=ANSWER_TIMEOUT_S,
            socket_connect_timeout=ANSWER_TIMEOUT_S,
            protocol=2,  # Every Redis knows it.
            retry=Retry(NoBackoff(), 0),  # What is said again is said by the log, which knows when not to.
        )
        self._keys = [f"{{{name}}}:{key}" for key in ("lease", "meta", "state")]
        self._seal = seal
        self._life = secrets.token_hex(8)
        self._new = f"{{{name}}}:new:{self._life}"
        self._scripts = {text: self._redis.register_script(text) for text in (_TAKE, _WRITE, _REPLACE, _RENEW, _RELEASE)}

    async def take(self, holder: str, lease_s: float) -> Found | Held:
        """See RedisServer. Raises JournalDamagedError when another cluster's head has written what is there."""
        await self._said(self._redis.ping())
        await self._check()
        answer = await self._run(_TAKE, holder, self._life, round(lease_s * 1000), SCHEMA, self._seal.close(SEAL, b""))
        if answer[0] == b"held":
            return Held(answer[1].decode(), max(0, answer[2]) / 1000)
        if answer[0] == b"later":
            raise JournalSchemaError(
                f"{self.where} has schema {answer[1]}, and this version of actorflow knows schemas up to {SCHEMA}: start the head with the"
                " version that wrote it, or a later one"
            )
        _, token, schema, number, seal, flat = answer
        grant = Grant(token, holder, self._life)
        try:
            state = self._opened(seal, flat, schema)
        except JournalDamagedError:
            await self.release(grant)  # Its own head may be about to come back.
            raise
        if schema < SCHEMA:
            await self.replace(grant, int(number), state)
        return Found(grant, state, int(number))

    async def write(self, grant: Grant, first: int, last: int, changes: Sequence[Change]) -> int:
        """See RedisServer."""
        outcome = {_field(change.kind, change.key): change.value for change in changes}
        sets = [part for field, value in outcome.items() if value is not None for part in (field, self._seal.close(field, value))]
        gone = [field for field, value in outcome.items() if value is None]
        return int(await self._held(_WRITE, grant, first, last, len(sets) // 2, *sets, *gone))

    async def replace(self, grant: Grant, last: int, state: State) -> None:
        """See RedisServer. It is put together beside the old one."""
        await self._said(self._redis.delete(self._new))
        chunk: dict[Any, Any] = {}
        size = 0
        for (kind, key), value in state.items():
            field = _field(kind, key)
            chunk[field] = self._seal.close(field, value)
            size += len(key) + len(value)
            if size >= CHUNK_BYTES:
                await self._add(chunk)
                chunk, size = {}, 0
        if chunk:
            await self._add(chunk)
        await self._held(_REPLACE, grant, last, SCHEMA)

    async def renew(self, grant: Grant, lease_s: float) -> int:
        """See RedisServer."""
        return int(await self._held(_RENEW, grant, round(lease_s * 1000)))

    async def release(self, grant: Grant) -> None:
        """See RedisServer."""
        await self._run(_RELEASE, grant.token, grant.life, grant.holder)

    async def close(self) -> None:
        """See RedisServer."""
        await self._redis.aclose()

    def _opened(self, seal: bytes, flat: list[bytes], schema: int) -> State:
        try:
            self._seal.open(SEAL, seal)
            fields = zip(flat[::2], flat[1::2], strict=True)
            changes = [Change(*_entry(field), self._seal.open(field, sealed)) for field, sealed in fields]
        except CredentialError as error:
            raise JournalDamagedError(str(error)) from None
        return {(change.kind, change.key): change.value for change in migrated(changes, schema) if change.value is not None}

    async def _add(self, chunk: dict[Any, Any]) -> None:
        await self._said(self._redis.hset(self._new, mapping=chunk))
        await self._said(self._redis.expire(self._new, NEW_KEPT_S))

    async def _held(self, script: str, grant: Grant, *args: Any) -> Any:
        answer = await self._run(script, grant.token, grant.life, grant.holder, *args)
        if answer == -1:
            raise LogTakenError("another head has taken this log; this one ends")
        return answer

    async def _run(self, script: str, *args: Any) -> Any:
        return await self._said(self._scripts[script](keys=[*self._keys, self._new], args=args))

    async def _said(self, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except RedisError as error:
            raise ConnectionError(str(error) or type(error).__name__) from error

    async def _check(self) -> None:
        """Of a Redis that loses what it was told say so, and refuse one that does so by intent."""
        try:
            settings: dict[Any, Any] = await self._redis.config_get("appendonly", "appendfsync", "maxmemory-policy")
        except RedisError as error:
            log.info("%s does not tell its settings: %s", self.where, error)
            return
        policy = settings.get("maxmemory-policy", "")
        if policy.startswith("allkeys"):
            raise OSError(
                f"the Redis at {self.where} throws keys away when its memory is full (maxmemory-policy {policy}), the head's state among"
                " them: set noeviction, or a volatile- policy"
            )
        if settings.get("appendonly") != "yes":
            log.warning("the Redis at %s writes nothing to its disk soon (appendonly no): what the head knows is gone with it", self.where)


def _field(kind: str, key: str) -> bytes:
    return f"{kind}\0{key}".encode()


def _entry(field: bytes) -> tuple[str, str]:
    kind, _, key = field.decode().partition("\0")
    return kind, key
