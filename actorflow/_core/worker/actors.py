"""Calling actors: each call goes straight to the actor's worker; the head only says where that is. Runs under the ports' lock."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from actorflow._core.base.errors import (
    ActorAlreadyExistsError,
    ActorDiedError,
    ActorPlacementGroupRemoved,
    ActorUnavailableError,
    ActorUnschedulableError,
    ClusterConnectionError,
    PendingCallsLimitExceeded,
    RuntimeEnvError,
    explain,
)
from actorflow._core.protocol.messages import (
    ActorCall,
    ActorDied,
    ActorOutOfScope,
    ActorState,
    CreateActorReply,
    NotTaken,
    WatchActor,
)
from actorflow._core.serialization.duals import text_of
from actorflow._core.worker.calls import Call, CallState
from actorflow._core.worker.class_versions import ClassVersions
from actorflow._core.worker.wakers import Callback, Waiter

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.core import Core

log = logging.getLogger("actorflow")

PUSHED = CallState.PUSHED
NEWS_S = 1.0
"""After a broken connection the head tells what became of the actor; without news for this long it is asked."""

_NEVER_BEGAN = frozenset({"init_failed", "unschedulable", "environment", "refused", "crashed"})
"""The kinds of an end before the beginning that nobody has asked for."""


NO_CALLS: deque[Call] = deque(maxlen=0)
"""The queue of all clients that have none: an empty deque takes 0.7 KB. Nothing can be put into it."""


class Mourner:
    """Who waits until an actor is gone for good. It has no handle, so that it keeps no actor alive (SEMANTICS 23)."""

    __slots__ = ("actor_id", "reason", "waiter")

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.actor_id = ""
        self.reason = "unknown"

    def told(self, died: ActorDied | None) -> None:
        """It is gone."""
        self.reason = died.reason if died is not None else self.reason
        self.waiter.settled(died)


class ActorClient:
    """What a process knows of one actor: shared by all handles to it. `lifetime` counts the handles (SEMANTICS 23).

    Handles and calls under way keep it; with the last of them it goes, and its `lifetime` with it.
    """

    __slots__ = (
        "__weakref__", "actor_id", "class_blob", "class_name", "died", "held", "incarnation", "inflight", "lifetime", "max_pending_calls",
        "max_task_retries", "peer", "queue", "resting", "same_as", "state", "trouble", "waiters", "worker_id",
    )  # fmt: skip

    def __init__(self, actor_id: str, class_name: str) -> None:
        self.actor_id = actor_id
        self.class_name = class_name
        self.class_blob = b""
        self.state = "pending"
        self.incarnation = 0
        self.worker_id = ""
        self.peer: Peer | None = None
        self.queue = NO_CALLS
        self.inflight: dict[int, Call] = {}
        self.resting = 0
        """Calls in a pause before they are tried again (`worker/retries.py`)."""
        self.died: ActorDied | None = None
        self.held: ActorState | None = None
        """The head's newest word of an actor that has moved, kept back until its old connection has said all."""
        self.trouble = ""
        """Why it is unreachable, or was the last time."""
        self.lifetime: Any = None
        self.waiters: list[tuple[Waiter, str]] = []
        self.max_task_retries = 0
        self.max_pending_calls = -1
        self.same_as: ActorClient | None = None
        """Made with get_if_exists for an actor that this process knew already: that client does everything."""

    def __repr__(self) -> str:
        return f"{self.class_name}(af-actor-{self.actor_id[:6]})"

    def line(self) -> deque[Call]:
        """The queue, to add to."""
        if self.queue is NO_CALLS:
            self.queue = deque()
        return self.queue

    def pending(self) -> int:
        """Calls of this process that have not ended."""
        client = self.same_as or self
        return len(client.queue) + len(client.inflight) + client.resting


class OwnClient(ActorClient):
    """What a shared actor knows of itself: the client of the handles to itself that it keeps.

    The owner counts processes, and cannot tell this actor's handles from those of the others that live in its process. So the
    actor has a client apart from theirs, and that one holds nothing: its handles do not count (SEMANTICS 23). Only what is needed
    to make a handle that counts is kept, for when it hands itself on.
    """

    __slots__ = ("_core", "_life")

    def __init__(self, core: Core, actor_id: str, class_name: str) -> None:
        self._core = core
        self._life: tuple[str, str, int] | None = None
        super().__init__(actor_id, class_name)

    @property
    def lifetime(self) -> Any:
        """A new reference each time: it goes on its way with a handle, or is dropped."""
        if self._life is None:
            return None
        with self._core.lock:
            return self._core.references.renew(*self._life)

    @lifetime.setter
    def lifetime(self, ref: Any) -> None:
        self._life = self._core.references.origin(ref) if ref is not None else None


class ActorCalls:
    """All actors that one process calls."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.clients: WeakValueDictionary[str, ActorClient] = WeakValueDictionary()
        self._own: WeakValueDictionary[str, OwnClient] = WeakValueDictionary()
        self.versions = ClassVersions()
        self._out_of_scope: dict[str, None] = {}
        """Actors without a handle, of whose end the head has not told yet."""
        self.unborn: dict[str, str] = {}
        """The detached actors that this process has asked for and that have not begun, with their names for people: when one never does,
        its handle may be long gone, and nobody would hear of it."""
        self._endings: dict[str, list[Callable[[], None]]] = {}
        """What is to be done when an actor is gone for good, whether or not anybody here still has a handle to it."""
        self._mourners: dict[str, dict[Mourner, None]] = {}
        """Who waits for that, and is told why."""

    def client(self, actor_id: str, class_name: str, *, watch: bool) -> ActorClient:
        """The client of an actor; the head is asked about actors that are new here."""
        client = self.clients.get(actor_id)
        if client is None:
            client = self.clients[actor_id] = ActorClient(actor_id, class_name)
            if watch:
                self._core.head.send(WatchActor(actor_id))
        return client

    def own_client(self, actor_id: str, class_name: str) -> OwnClient:
        """The client of a shared actor that lives here, for the actor itself."""
        client = self._own.get(actor_id)
        if client is None:
            client = self._own[actor_id] = OwnClient(self._core, actor_id, class_name)
            self._core.head.send(WatchActor(actor_id))
        return client

    def watched(self) -> list[str]:
        """The actors whose life matters here."""
        living = [client.actor_id for client in self.every() if client.state != "dead"]
        return list(dict.fromkeys([*living, *self._endings, *self._mourners, *self._out_of_scope, *self.unborn]))

    def every(self) -> list[ActorClient]:
        """All clients of this process."""
        return [*self.clients.values(), *self._own.values()]

    # -- calls

    def check_room(self, client: ActorClient) -> None:
        """Raise PendingCallsLimitExceeded when `max_pending_calls` are under way."""
        limit = client.max_pending_calls
        if 0 < limit <= client.pending():
            raise PendingCallsLimitExceeded(
                f"{client!r} has {client.pending()} calls of this process under way, max_pending_calls={limit}: "
                "await some of them, or use `await handle.method(...)` or `.submit(...)`, which wait for room"
            )

    def submit(self, client: ActorClient, call: Call) -> None:
        """Send the call, or queue it behind those before it (SEMANTICS 20)."""
        client = call.place = client.same_as or client
        if call.extra and call.deps and not call.waiting_for and not self._core.caller.lacks_arguments(call) and client.state != "dead":
            failed = self._core.caller.failed_argument(call)
            if failed is not None:
                self._core.caller.finish(call, failed)
                return
        if client.state == "alive" and not client.queue and not (call.extra and call.waiting_for):
            self._push(client, call)
        elif client.state == "dead":
            self._core.caller.settle_error(call, self._dead_error(client))
        else:
            if not call.waiting_for:
                call.state = CallState.QUEUED
            client.line().append(call)

    def pump(self, client: ActorClient) -> None:
        """Push what is ready, in order; a call that waits for an argument holds back those behind it."""
        queue = client.queue
        while queue and client.state == "alive":
            call = queue[0]
            if call.state is CallState.DONE:
                queue.popleft()
                if client.waiters:
                    self._wake(client, "room")
                continue
            if call.waiting_for or (call.extra and self._core.caller.lacks_arguments(call)):
                return
            queue.popleft()
            if call.extra and call.deps and (failed := self._core.caller.failed_argument(call)) is not None:
                self._core.caller.finish(call, failed)
                if client.waiters:
                    self._wake(client, "room")
                continue
            self._push(client, call)
        if not queue and client.queue is queue:
            client.queue = NO_CALLS

    def _push(self, client: ActorClient, call: Call) -> None:
        core = self._core
        peer = client.peer
        assert peer is not None
        inflight = client.inflight
        first = not inflight
        call.state = PUSHED
        seq = call.entry.index
        inflight[seq] = call
        message = ActorCall(seq, call.attempt, client.actor_id, client.incarnation, call.target.name, call.args)
        if call.extra:
            message.buffers = call.buffers
            message.context = core.caller.context_of(call)
        core.push(peer, message, urgent=first)

    def completed(self, call: Call) -> None:
        """A reply came."""
        client: ActorClient = call.place
        client.inflight.pop(call.entry.index, None)
        self.one_less(client)

    def one_less(self, client: ActorClient) -> None:
        """A call of it is not under way any more."""
        if client.waiters:
            if client.pending():
                self._wake(client, "room")
            else:
                self._wake(client, "room", "drained")

    def cancel(self, call: Call) -> None:
        """End a call that is queued or pushed."""
        client: ActorClient = call.place
        if call.state is CallState.PUSHED and client.peer is not None:
            self._core.cancels.ask(client.peer, call)
        else:
            self._core.caller.settle_cancelled(call)
            self._core.retries.forget(call)
            if call in client.queue:
                client.queue.remove(call)
            self.pump(client)
            self.one_less(client)

    # -- waiting

    def wait(self, client: ActorClient, what: str, waiter: Waiter) -> bool:
        """Register for `alive`, `dead` or `room`; False when it is so already."""
        client = client.same_as or client
        if self._holds(client, what):
            return False
        client.waiters.append((waiter, what))
        return True

    @staticmethod
    def _holds(client: ActorClient, what: str) -> bool:
        if what == "room":
            return client.state == "dead" or not 0 < client.max_pending_calls <= client.pending()
        if what == "alive":
            return client.state in ("alive", "dead")
        return client.state == "dead"

    def _wake(self, client: ActorClient, *events: str) -> None:
        keep = []
        for waiter, what in client.waiters:
            if what in events:
                waiter.settled(client)
                if what == "room":
                    # One place became free: one waiter goes; it asks again if it was too late.
                    events = tuple(event for event in events if event != "room")
            else:
                keep.append((waiter, what))
        client.waiters = keep

    # -- what the head says

    def on_state(self, peer: Peer, message: ActorState) -> None:
        """The actor's life went on."""
        if self.unborn and message.state in ("alive", "dead"):
            self._born(message.actor_id, message.died)
        if message.state == "dead":
            self._run_endings(message.actor_id, message.died)
            self._out_of_scope.pop(message.actor_id, None)
            for what in ("scope", "kill", "bounce"):
                self._core.head_line.answered(what, message.actor_id)
        elif message.state == "alive" and message.actor_id in self._core.objects.lives:
            self._core.references.lives_in(self._core.objects.lives[message.actor_id], message.worker_id)
        bounce: Any = self._core.head_line.asked("bounce", message.actor_id)
        if bounce is not None and (message.state == "restarting" or message.incarnation > bounce.incarnation):
            self._core.head_line.answered("bounce", message.actor_id)
        for client in (self.clients.get(message.actor_id), self._own.get(message.actor_id)):
            if client is not None and client.state != "dead":
                self._hear(client, message)

    def _hear(self, client: ActorClient, message: ActorState) -> None:
        if message.incarnation < client.incarnation and message.state != "dead":
            return
        if message.state in ("restarting", "alive") and self._says_more(client, message):
            return
        if message.state == "alive":
            if client.state == "alive" and client.incarnation == message.incarnation and client.peer and not client.peer.lost:
                return
            same_life = client.state == "unreachable" and client.incarnation == message.incarnation
            if same_life:
                self._lose_inflight(client, client.trouble, restarts=False)
            else:
                self._lose_inflight(client, "it was restarted")
            client.state, client.incarnation, client.worker_id = "alive", message.incarnation, message.worker_id
            client.peer = self._core.peer(message.worker_id, message.address)
            if client.peer.lost:
                self.peer_lost(client.peer, "it ended at once")
                return
            self._wake(client, "alive")
            self.pump(client)
        elif message.state == "dead":
            self._die(client, message.died)
        else:
            client.state = message.state
            client.incarnation = message.incarnation
            if message.state == "restarting":
                self._lose_inflight(client, message.died.reason if message.died else "its process died")

    def on_not_taken(self, peer: Peer, message: NotTaken) -> None:
        """It moves, or leaves (AE-2): these calls go to its next incarnation, if there is one, before all that were made later."""
        for client in (self.clients.get(message.actor), self._own.get(message.actor)):
            if client is None or client.peer is not peer or client.incarnation != message.incarnation or client.state == "dead":
                continue
            if message.goes_on:
                if client.state == "moving":
                    client.state = "alive"
                    self.pump(client)
                continue
            if client.state == "alive":
                client.state, client.trouble = "moving", "it leaves its process"
            self._take_back(client, list(client.inflight) if message.all else message.seqs)
            if message.all:
                # This life is over, whatever a head says that has just come back.
                held, client.held = client.held, None
                client.state, client.incarnation, client.peer = "restarting", message.incarnation + 1, None
                if held is not None:
                    self._hear(client, held)

    def _take_back(self, client: ActorClient, seqs: Iterable[int]) -> None:
        """These calls have not run: they stand in the queue again, where they were."""
        again = [call for seq in seqs if (call := client.inflight.pop(seq, None)) is not None]
        for call in again:
            if call.cancelled:
                self._core.caller.settle_cancelled(call)
            else:
                call.attempt += 1
                call.state = CallState.QUEUED
        waiting = sorted((call for call in again if not call.cancelled), key=lambda call: call.entry.index)
        if waiting:
            line = client.line()
            if line and waiting[-1].entry.index > line[0].entry.index:
                waiting = sorted((*waiting, *line), key=lambda call: call.entry.index)
                line.clear()
            line.extendleft(reversed(waiting))
        if len(waiting) < len(again):
            self.one_less(client)

    def _says_more(self, client: ActorClient, message: ActorState) -> bool:
        """True while replies, or calls that come back, may be on their way on the connection with an incarnation that has moved."""
        moves = client.state == "moving" or (client.state == "alive" and message.died is not None and message.died.drained)
        if not moves or not client.inflight or client.peer is None or client.peer.lost:
            return False
        client.state = "moving"
        if message.incarnation > client.incarnation:
            if client.held is None:
                self._core.later(NEWS_S, partial(self._said_all, client, client.peer))
            client.held = message
        return True

    def _said_all(self, client: ActorClient, peer: Peer | None) -> None:
        """The old connection has ended, or its time is over."""
        held, client.held = client.held, None
        if held is not None and client.state == "moving" and client.peer is peer:
            client.peer = None
            self._hear(client, held)

    def on_create_reply(self, peer: Peer, message: CreateActorReply) -> None:
        """The head took note, or refused."""
        self._core.head_line.answered("create", message.actor_id)
        if message.error or message.existing:
            self._born(message.actor_id, ActorDied("refused", message.error) if message.error else None)
        client = self.clients.get(message.actor_id)
        if message.error:
            died = ActorDied("name_taken" if message.existing else "refused", message.error)
            self._run_endings(message.actor_id, died)
            if client is not None:
                self._die(client, died)
        elif message.existing:
            for mourner in self._mourners.pop(message.actor_id, ()):
                self._mourn(mourner, message.existing)
            self._run_endings(message.actor_id, None)
            self.versions.found(message.existing, message.class_id)
            if client is not None:
                self._become(client, message.existing)

    def _become(self, client: ActorClient, actor_id: str) -> None:
        """get_if_exists found an actor: what was meant for a new one is for that. Its state follows."""
        other = self.clients.get(actor_id)
        del self.clients[client.actor_id]
        client.actor_id = actor_id
        # Its owner's handles keep it, not ours: names do not count (SEMANTICS 23).
        client.lifetime = other.lifetime if other is not None else None
        if other is None:
            self.clients[actor_id] = client
            return
        client.same_as = other
        while client.queue:
            call = client.queue.popleft()
            if call.state is not CallState.DONE:
                self.submit(other, call)
        waiters, client.waiters = client.waiters, []
        for waiter, what in waiters:
            if not self.wait(other, what, waiter):
                waiter.settled(other)

    def peer_lost(self, peer: Peer, reason: str) -> None:
        """The connection to a worker broke: hold everything until the head says what became of its actors."""
        for client in self.every():
            if client.peer is peer and not peer.role and client.state in ("alive", "moving"):
                self._take_back(client, list(client.inflight))  # It was never there: nothing was sent.
            if client.peer is peer and client.state == "dead":
                self._fail_inflight(client)
            elif client.peer is peer and client.state == "moving":
                if client.held is not None:
                    self._said_all(client, peer)
                else:
                    client.state, client.trouble, client.peer = "unreachable", reason, None
                    self._core.later(NEWS_S, partial(self._ask, client))
            elif client.peer is peer and client.state == "alive":
                client.state, client.trouble = "unreachable", reason
                client.peer = None
                self._core.later(NEWS_S, partial(self._ask, client))

    def _ask(self, client: ActorClient) -> None:
        if client.state == "unreachable":
            self._core.head.send(WatchActor(client.actor_id))

    def _lose_inflight(self, client: ActorClient, reason: str, *, restarts: bool = True) -> None:
        again = []
        what, goes_on = ("the actor was lost", "restarts") if restarts else ("the connection with it ended", "lives on")
        # What waits for these calls may make new ones at once: they are not among the lost.
        lost, client.inflight = client.inflight, {}
        for call in lost.values():
            if call.cancelled:
                self._core.caller.settle_cancelled(call)
            elif call.retries_left == 0:
                self._core.caller.settle_error(call, _unsure(client, call, what, reason, goes_on))
            else:
                if call.retries_left > 0:
                    call.retries_left -= 1
                call.attempt += 1
                call.state = CallState.QUEUED
                again.append(call)
        if again:
            client.line().extendleft(reversed(again))

    def _die(self, client: ActorClient, died: ActorDied | None) -> None:
        client.state, client.died = "dead", died
        calls = [*client.queue, *self._core.retries.take(client)]
        client.queue.clear()
        if died is not None and died.drained and client.inflight and client.peer is not None and not client.peer.lost:
            # The word of its end came another way than its last replies: these may be here in a moment.
            self._core.later(NEWS_S, partial(self._fail_inflight, client))
        else:
            self._fail_inflight(client)
        self._fail_calls(client, calls)
        self._wake(client, "alive", "dead", "room")
        self._run_endings(client.actor_id, died)

    def _fail_inflight(self, client: ActorClient) -> None:
        client.peer = None
        lost, client.inflight = client.inflight, {}
        self._fail_calls(client, list(lost.values()))

    def _fail_calls(self, client: ActorClient, calls: list[Call]) -> None:
        for call in calls:
            if call.state is not CallState.DONE:
                if call.cancelled:
                    self._core.caller.settle_cancelled(call)
                else:
                    self._core.caller.settle_error(call, self._dead_error(client))

    def _born(self, actor_id: str, died: ActorDied | None) -> None:
        """It has begun, or never will (`died`): that is logged when nobody here waits for it, who would be told."""
        name = self.unborn.pop(actor_id, None)
        if name is None or died is None or died.kind not in _NEVER_BEGAN:
            return
        client = self.clients.get(actor_id)
        if client is None or not (client.pending() or client.waiters):
            log.error("detached actor %s could not begin, and nobody waits for it: %s", name, died.reason)

    def _run_endings(self, actor_id: str, died: ActorDied | None) -> None:
        for ending in self._endings.pop(actor_id, ()):
            ending()
        for mourner in self._mourners.pop(actor_id, ()):
            mourner.told(died)

    def mourn(self, client: ActorClient, mourner: Mourner) -> None:
        """Tell `mourner` when the actor is gone for good."""
        client = client.same_as or client
        if client.state == "dead":
            mourner.told(client.died)
        else:
            self._mourn(mourner, client.actor_id)

    def _mourn(self, mourner: Mourner, actor_id: str) -> None:
        mourner.actor_id = actor_id
        self._mourners.setdefault(actor_id, {})[mourner] = None

    def mourn_no_more(self, mourner: Mourner) -> None:
        """It was told, or does not wait any more."""
        mourners = self._mourners.get(mourner.actor_id, {})
        mourners.pop(mourner, None)
        if not mourners:
            self._mourners.pop(mourner.actor_id, None)

    def at_death(self, client: ActorClient, fn: Callable[[], None]) -> None:
        """Call `fn` when the actor is gone for good."""
        if client.state == "dead":
            fn()
        else:
            self._endings.setdefault(client.actor_id, []).append(fn)

    def fail(self, client: ActorClient, error: BaseException) -> None:
        """The actor could not even be asked for."""
        died = ActorDied("init_failed", text_of(error), self._core.failed(error))
        self._born(client.actor_id, died)
        self._die(client, died)

    def creation_unsendable(self, actor_id: str, error: BaseException) -> None:
        """The head will never hear of it."""
        client = self.clients.get(actor_id)
        if client is None:
            died = ActorDied("init_failed", text_of(error))
            self._born(actor_id, died)
            self._run_endings(actor_id, died)
        elif client.state != "dead":
            self.fail(client, error)

    def _dead_error(self, client: ActorClient) -> BaseException:
        died = client.died
        if died is not None and died.error is not None:
            return self._core.error_of(died.error)
        if died is not None and died.kind == "name_taken":
            return ActorAlreadyExistsError(died.reason)
        if died is not None and died.kind in ("refused", "unschedulable"):
            return ActorUnschedulableError(f"{client!r} cannot run here: {died.reason}")
        if died is not None and died.kind == "environment":
            return RuntimeEnvError.explain(which=repr(client), what="cannot run", why=died.reason)
        if died is not None and died.kind == "group_removed":
            facts = {"actor": repr(client), "actor_id": client.actor_id, "reason": died.reason}
            return ActorPlacementGroupRemoved(f"{client!r} is dead: {died.reason}", **facts)
        if died is not None and died.kind == "cluster_ended":
            # The actor may well live: a detached one does, on the nodes that this process is cut off from.
            return ClusterConnectionError(f"{client!r} cannot be reached any more: {died.reason}", reason=died.reason)
        reason = died.reason if died else "the head does not know it (any more)"
        return ActorDiedError(f"{client!r} is dead: {reason}", actor=repr(client), actor_id=client.actor_id, reason=reason)

    def dead_error(self, client: ActorClient) -> BaseException:
        """Why calls to it fail."""
        return self._dead_error(client)

    # -- the end of handles

    def out_of_scope(self, actor_id: str) -> None:
        """The last handle anywhere is gone (we own its lifetime). Our own calls under way come first (SEMANTICS 23)."""
        client = self.clients.get(actor_id)
        if client is not None and client.state != "dead" and client.pending():
            client.waiters.append((Callback(lambda _: self.out_of_scope(actor_id)), "drained"))
            return
        if self._core.head_line.returns:
            self._out_of_scope[actor_id] = None
        self._core.head_line.ask("scope", actor_id, ActorOutOfScope(actor_id))

    def fail_all(self, error: Exception) -> None:
        """The cluster is gone."""
        for client in self.every():
            if client.state != "dead":
                self._die(client, ActorDied("cluster_ended", str(error)))
        for actor_id in [*self._endings, *self._mourners]:
            self._run_endings(actor_id, ActorDied("cluster_ended", str(error)))


def _unsure(client: ActorClient, call: Call, what: str, reason: str, goes_on: str) -> ActorUnavailableError:
    """Its actor was lost under a call that is not tried again, or not any more."""
    which, again = f"{client!r}.{call.target.name}", "set max_task_retries to have it tried again"
    if call.attempt:
        which, again = f"{which} (attempt {call.attempt + 1})", "set a larger max_task_retries, as those are used up"
    why, newline, lines = reason.partition("\n")  # The last output of the process stands below the cause (node/context.py).
    text = explain(
        which=which,
        what=f"was under way when {what}, and may or may not have run",
        why=why,
        next_step=f"the actor {goes_on}: call again, or {again}",
    )
    return ActorUnavailableError(f"{text}{newline}{lines}")
