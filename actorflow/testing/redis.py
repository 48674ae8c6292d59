"""A simulated Redis, for the log of a head: it outlives all machines, and what is under way to it arrives whoever has died.

RX-1: a step is done as a whole or not at all, one after the other. RX-2: one whose sender has ended may still arrive, and one that was
done may never be answered. RX-3: `fail_over` goes back to what a replica had: the steps since `replicate` are forgotten.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from typing import Any

from actorflow._core.io.redis_log import Found, Grant, Held, LogTakenError
from actorflow._core.io.state_log import State, apply
from actorflow._core.protocol.journal_format import Change
from actorflow.testing.host import Host
from actorflow.testing.world import World

ANSWER_TIMEOUT_S = 5.0
LATE_SHARE, LATE_MAX_S = 0.1, 0.3


class _Content:
    """What is in it."""

    def __init__(self) -> None:
        self.lease_of = ""
        self.lease_until = 0.0
        self.token = self.number = 0
        self.life = ""
        self.state: State = {}


class SimRedisServer:
    """The Redis itself. `lost`: so many of a hundred requests and answers are. `away`: nothing arrives."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.rng("redis")
        self.lost = 0
        self.away = False
        self.content = _Content()
        self._replica = _Content()

    def replicate(self) -> None:
        """A replica has all now."""
        self._replica = copy.deepcopy(self.content)

    def fail_over(self) -> None:
        """The replica takes the place of it (RX-3)."""
        self.content = copy.deepcopy(self._replica)

    def delay_s(self) -> float:
        """Of one way. Some are late enough for what another has said since."""
        return self.rng.uniform(0, LATE_MAX_S) if self.rng.random() < LATE_SHARE else self.rng.uniform(0.0001, 0.002)

    def loses(self) -> bool:
        """What is under way goes nowhere."""
        return self.away or self.rng.random() * 100 < self.lost

    def look(self, grant: Grant) -> bool:
        """Whether it remembers who asks. Raises LogTakenError."""
        content = self.content
        if content.token > grant.token or (content.token == grant.token and content.life != grant.life):
            raise LogTakenError("another head has taken this log")
        if content.token < grant.token and self.lease_of() not in ("", grant.holder):
            raise LogTakenError("another head has a lease on this log")
        return content.token == grant.token

    def lease_of(self) -> str:
        """Whose lease runs."""
        return self.content.lease_of if self.content.lease_until > self.world.now else ""


class SimRedis:
    """The `RedisServer` of one process."""

    where = "redis://simulated"

    def __init__(self, host: Host, server: SimRedisServer) -> None:
        self.host = host
        self.server = server
        self._life = host.name

    async def take(self, holder: str, lease_s: float) -> Found | Held:
        """See RedisServer."""

        def step() -> Found | Held:
            content, now = self.server.content, self.server.world.now
            other = self.server.lease_of()
            if other not in ("", holder):
                return Held(other, content.lease_until - now)
            content.lease_of, content.lease_until = holder, now + lease_s
            content.token += 1
            content.life = self._life
            return Found(Grant(content.token, holder, self._life), dict(content.state), content.number)

        found: Found | Held = await self._ask(step)
        return found

    async def write(self, grant: Grant, first: int, last: int, changes: Sequence[Change]) -> int:
        """See RedisServer."""

        def step() -> int:
            content = self.server.content
            if not self.server.look(grant) or content.number != first - 1:
                return content.number
            apply(content.state, changes)
            content.number = last
            return last

        there: int = await self._ask(step)
        return there

    async def replace(self, grant: Grant, last: int, state: State) -> None:
        """See RedisServer."""

        def step() -> None:
            content = self.server.content
            self.server.look(grant)
            content.token, content.life, content.number, content.state = grant.token, grant.life, last, dict(state)

        await self._ask(step)

    async def renew(self, grant: Grant, lease_s: float) -> int:
        """See RedisServer."""

        def step() -> int:
            self.server.look(grant)
            self.server.content.lease_of, self.server.content.lease_until = grant.holder, self.server.world.now + lease_s
            return self.server.content.number

        there: int = await self._ask(step)
        return there

    async def release(self, grant: Grant) -> None:
        """See RedisServer."""

        def step() -> None:
            self.server.look(grant)
            self.server.content.lease_of = ""

        try:
            await self._ask(step)
        except LogTakenError:
            pass  # Nothing of it is there.

    async def close(self) -> None:
        """See RedisServer."""

    async def _ask(self, step: Callable[[], Any]) -> Any:
        server, world = self.server, self.server.world
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def arrived() -> None:
            if server.loses():
                return
            outcome: Any = None
            failed: Exception | None = None
            try:
                outcome = step()
            except LogTakenError as error:
                failed = error
            if not server.loses():
                world.at_host(self.host, world.now + server.delay_s(), answered, outcome, failed)

        def answered(outcome: Any, failed: Exception | None) -> None:
            if answer.done():
                return
            if failed is not None:
                answer.set_exception(failed)
            else:
                answer.set_result(outcome)

        world.at_time(world.now + server.delay_s(), arrived)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await answer
        except TimeoutError:
            raise ConnectionError("the simulated Redis does not answer") from None
