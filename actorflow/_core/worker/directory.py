"""What is asked of the head: actors by name, their life and their end, and the state of the cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from actorflow._core.base.errors import ActorflowError, ActorNotFoundError
from actorflow._core.policy.ownership import Owned
from actorflow._core.protocol import messages as m
from actorflow._core.worker.actors import Mourner
from actorflow._core.worker.context import running_call
from actorflow._core.worker.create import create_actor
from actorflow._core.worker.object_ref import ObjectRef
from actorflow._core.worker.streams import Stream
from actorflow._core.worker.wakers import FutureWaiter

if TYPE_CHECKING:
    from actorflow._core.base.targets import ActorTarget
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.actors import ActorClient
    from actorflow._core.worker.core import Core

log = logging.getLogger("actorflow")

LIVES = ("alive", "moving", "unreachable")
"""States of an actor in which its incarnation has begun, as far as one knows here."""


class Directory:
    """One process's questions to the head, and the answers."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._tokens = 0
        self._answers: dict[int, Callable[[Any], None]] = {}
        self._awaited: dict[FutureWaiter, ActorClient] = {}
        """Actors that somebody waits for."""

    def fail_all(self, error: BaseException) -> None:
        """The cluster is gone: no answer will come."""
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            answer(error)

    # -- actors

    def create_actor(self, target: ActorTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: Any) -> ActorClient:
        """See Runtime."""

        return create_actor(self._core, target, args, kwargs, options)

    def restore_actor(self, actor_id: str, lifetime: ObjectRef[Any] | None, class_name: str, class_blob: bytes) -> ActorClient:
        """A handle arrived: the client of its actor."""
        with self._core.lock:
            if self._is_shared_self(actor_id):
                own = self._core.actors.own_client(actor_id, class_name)
                if lifetime is not None:
                    own.lifetime = lifetime
                own.class_blob = own.class_blob or class_blob
                return own
            client = self._core.actors.client(actor_id, class_name, watch=True)
            client.class_blob = client.class_blob or class_blob
            if client.lifetime is None and lifetime is not None:
                client.lifetime = lifetime
        return client

    def _is_shared_self(self, actor_id: str) -> bool:
        """True in the code of a shared actor that gets a handle to itself. One with a process of its own is known by that process."""
        running, host = running_call.get(), self._core.host
        if running is None or running.actor_id != actor_id or host is None:
            return False
        actor = host.actors.get(actor_id)
        return actor is not None and actor.spec.shared

    async def wait_actor(self, actor: ActorClient, what: str) -> None:
        """Wait until an actor is `alive` (or dead), `dead`, or has `room`."""
        gate = self._core.gates.current()
        waiter = FutureWaiter(gate)
        with self._core.lock:
            if not self._core.actors.wait(actor, what, waiter):
                return
            # The table of actors holds weakly: who waits and what it waits for would hold only each other, and be collected together.
            self._awaited[waiter] = actor
        try:
            await self._core.caller.blocked(waiter.future)
        finally:
            with self._core.lock:
                del self._awaited[waiter]

    async def wait_room(self, actor: ActorClient | None, options: Any) -> None:
        """See Runtime. Tasks have no bound of their own: there is always room."""
        if actor is None:
            return
        await self.wait_actor(actor, "room")

    async def wait_alive(self, actor: ActorClient) -> None:
        """See Runtime."""
        await self.wait_actor(actor, "alive")
        actor = actor.same_as or actor
        if actor.state == "dead":
            raise self._core.actors.dead_error(actor)

    async def wait_dead(self, actor: ActorClient) -> str:
        """See Runtime."""
        waiter = FutureWaiter(self._core.gates.current())
        mourner = Mourner(waiter)
        with self._core.lock:
            self._core.actors.mourn(actor, mourner)
        del actor  # Its last handle may go meanwhile.
        try:
            await self._core.caller.blocked(waiter.future)
        finally:
            with self._core.lock:
                self._core.actors.mourn_no_more(mourner)
        return mourner.reason

    async def outcome(self, call: Any) -> BaseException | None:
        """See Runtime: how the call behind an ObjectRef or a Stream ended, without its value."""
        if isinstance(call, Stream):
            state = call._state
            while True:
                waiter = FutureWaiter(self._core.gates.current())
                with self._core.lock:
                    if state.ended:
                        break
                    state.waiters.append(waiter)
                await waiter.future
            await self._core.cancels.until_over(state.call.entry.index)
            return state.error
        entry = call._entry
        await self._core.objects.wait_many([entry], 1)
        if type(entry) is Owned:
            entry.seen = True
            await self._core.cancels.until_over(entry.index)
        return self._core.error_of(entry.outcome) if type(entry.outcome) is m.Failed else None

    async def find_actor(self, name: str, namespace: str | None) -> tuple[ActorClient, bytes]:
        """See Runtime."""
        namespace = namespace or self._core.identity.namespace
        reply: m.FindActorReply = await self.ask(lambda token: m.FindActor(token, name, namespace))
        if not reply.actor_id:
            raise ActorNotFoundError(self._not_found(reply, name, namespace))
        with self._core.lock:
            self._core.actors.versions.found(repr(name), reply.class_id)
        # What is found by name is kept alive by its owner's handles, not by ours: names do not count (SEMANTICS 23).
        return self.restore_actor(reply.actor_id, None, reply.class_name, reply.methods), reply.methods

    @staticmethod
    def _not_found(reply: m.FindActorReply, name: str, namespace: str) -> str:
        text = f"there is no actor named {name!r} in namespace {namespace!r}"
        if reply.died:
            text += f"; the last one is dead: {reply.died}"
        if reply.near:
            text += f"; near names: {', '.join(map(repr, reply.near))}"
        if reply.elsewhere:
            text += f"; namespaces that have it: {', '.join(map(repr, reply.elsewhere))}"
        return text

    async def state(self, kind: str, *, limit: int, timeout_s: float) -> list[dict[str, Any]]:
        """See Runtime."""
        reply: m.StateReply = await self.ask(lambda token: m.StateQuery(token, kind, limit, timeout_s))
        if reply.missing:
            log.warning("af.state %s: no answer in time from %s", kind, ", ".join(reply.missing))
        if reply.error:
            raise ActorflowError(f"af.state {kind}: {reply.error}")
        rows: list[dict[str, Any]] = msgspec.json.decode(reply.rows)
        return rows

    async def kill_actor(self, actor: ActorClient, *, no_restart: bool, graceful: bool) -> None:
        """See Runtime."""
        if graceful:
            # The word goes by another way than our calls, and must not overtake them.
            client = actor.same_as or actor
            with self._core.lock:
                under_way = [call.entry for call in (*client.queue, *client.inflight.values(), *self._core.retries.calls(client))]
            await self._core.objects.wait_many(under_way, len(under_way))
        with self._core.lock:
            kill = m.KillActor(actor.actor_id, no_restart, graceful)
            client = actor.same_as or actor
            if no_restart:
                self._core.head_line.ask("kill", actor.actor_id, kill)
            elif client.state in LIVES:
                kill.incarnation = client.incarnation  # It may be said twice, and must not end the life after this one.
                self._core.head_line.ask("bounce", actor.actor_id, kill)
            else:
                self._core.head.send(kill)
        if no_restart:
            await self.wait_actor(actor, "dead")

    # -- questions to the head

    async def ask(self, make: Callable[[int], m.AnyMessage]) -> Any:
        """Send a message with a token to the head and wait for its answer."""
        waiter = FutureWaiter(self._core.gates.current())
        answer: list[Any] = []

        def answered(message: Any) -> None:
            answer.append(message)
            waiter.settled(message)

        self._core.check_open()
        with self._core.lock:
            self._tokens += 1
            token = self._tokens
            self._answers[token] = answered
            self._core.flush_now(self._core.head_line.ask("question", token, make(token)))
        try:
            await waiter.future
        finally:
            with self._core.lock:
                self._answers.pop(token, None)
                self._core.head_line.answered("question", token)
        if isinstance(answer[0], BaseException):
            raise answer[0]
        return answer[0]

    def say(self, make: Callable[[int], m.AnyMessage]) -> None:
        """As `ask`, and nobody waits for the answer: it is said until the head has heard it. Under the lock."""
        self._tokens += 1
        token = self._tokens

        def answered(message: Any) -> None:
            self._core.head_line.answered("question", token)

        self._answers[token] = answered
        self._core.head_line.ask("question", token, make(token))

    def unsendable(self, token: int, error: BaseException) -> None:
        """A question that could not be sent has no answer but this."""
        answered = self._answers.pop(token, None)
        if answered is not None:
            answered(error)

    def on_answer(self, peer: Peer, message: m.FindActorReply | m.StateReply | m.DrainReply | m.DurablePut | m.DurablesFreed) -> None:
        answered = self._answers.pop(message.token, None)
        if answered is not None:
            answered(message)

    def on_state_query(self, peer: Peer, message: m.StateQuery) -> None:
        from actorflow._core.worker.inspect import answer_query

        peer.send(m.StateReply(message.token, answer_query(self._core, message)))
