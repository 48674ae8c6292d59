"""Placement groups as a driver or worker uses them: asked for, waited for, and the way to the node that holds a bundle.

Runs under the ports' lock. This module is loaded by the first group that a process has to do with.

GC-1: a request for a lease in a bundle goes only to the node that the head's newest word names; where a node has contradicted it,
      nothing is asked until the head has spoken again.
GC-2: a task waits as long as its group, or the only bundle that could hold it, may still get a place; with the group it fails, at once
      and in words, and so does what no bundle of the whole group could hold.
GC-3: of the groups that are removed at most REMOVED_MAX are remembered; the head knows the others.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import (
    PlacementGroupError,
    PlacementGroupRemovedError,
    PlacementGroupUnschedulableError,
    ProtocolError,
    TaskPlacementGroupRemoved,
)
from actorflow._core.base.ids import GroupId
from actorflow._core.policy.bundle_fit import could_hold, why_in_none
from actorflow._core.policy.placement_wish import group_of
from actorflow._core.protocol.messages import GroupWord
from actorflow._core.protocol.messages import group as words
from actorflow._core.worker.calls import Call, unschedulable
from actorflow._core.worker.context import running_call
from actorflow._core.worker.wakers import FutureWaiter

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.core import Core
    from actorflow._core.worker.tasks import LeaseClass

log = logging.getLogger("actorflow")

REMOVED_MAX = 1_000
ASK_AGAIN_S = 0.05
"""After a node has contradicted the head, the head has this long to say what is new before it is asked."""
UNANSWERED_S = 1.0
"""The head says nothing of a group that has no place and no reason yet; it is asked once more after this time."""
REQUESTS_MAX = 16
"""Requests of one scheduling class for leases in a group, on all of its nodes together."""


class GroupClient:
    """What this process knows of one group."""

    __slots__ = (
        "addresses", "asking", "bundles", "classes", "doubted", "group_id", "infeasible", "nodes", "reason", "refused", "state",
        "waiters",
    )  # fmt: skip

    def __init__(self, group_id: GroupId) -> None:
        self.group_id = group_id
        self.state = "unknown"
        """unknown | pending | created | rescheduling | removed."""
        self.nodes: list[str] = []
        self.addresses: dict[str, str] = {}
        self.bundles: list[dict[str, int]] = []
        self.reason = ""
        self.infeasible = False
        self.refused = False
        """It was never created."""
        self.asking = False
        """It will be asked of the head, at most once at a time."""
        self.doubted = False
        """A node has contradicted what is known here (GC-1)."""
        self.waiters: list[FutureWaiter] = []
        self.classes: dict[LeaseClass, None] = {}
        """Scheduling classes with tasks for it."""

    def why_never(self, klass: LeaseClass) -> str:
        """Why no bundle of the whole group, wherever it is, can hold tasks of a class that may be in any; empty when one can."""
        group_id, index = group_of(klass.options.placement)
        if index >= 0 or not self.bundles:
            return ""  # The node that has the bundle says so, or the head has not said yet what there is.
        return why_in_none(group_id, klass.options.resources, enumerate(self.bundles))

    @property
    def hopeless(self) -> bool:
        """No set of the nodes that there are could hold it, and it was never complete."""
        return self.infeasible and self.state == "pending"

    def error(self) -> PlacementGroupError | None:
        """Why waiting for it is no use."""
        if self.state == "removed":
            kind = PlacementGroupError if self.refused else PlacementGroupRemovedError
            what = "was not created" if self.refused else "is no more"
            return kind.explain(which=f"placement group {self.group_id}", what=what, why=self.reason, group_id=self.group_id)
        if self.hopeless:
            return PlacementGroupUnschedulableError.explain(
                which=f"placement group {self.group_id}",
                what="can have no place on the nodes that there are",
                why=self.reason,
                next_step="ask for less, or add a node: it waits until it is removed, and `ready()` may be awaited again",
                group_id=self.group_id,
            )
        return None


class GroupCalls:
    """All groups that one process has to do with."""

    def __init__(self, core: Core) -> None:
        self._core = core
        core.head_line.on_return.append(self._watch_again)
        self._groups: dict[GroupId, GroupClient] = {}
        self._removed: OrderedDict[GroupId, GroupClient] = OrderedDict()
        self._answers: dict[int, Callable[[Any], None]] = {}
        self._tokens = 0
        self._shared: Peer | None = None
        """The connection to the head, once whoever waits for its answers reads them."""
        self._handlers: dict[type, Callable[[Any], None]] = {
            words.GroupState: self._on_state,
            words.GroupRefused: self._on_refused,
            words.GroupFound: self._on_found,
        }

    # -- for the public face

    def create(
        self,
        strategy: str,
        bundles: list[dict[str, int]],
        labels: list[dict[str, str]],
        *,
        name: str,
        namespace: str,
        detached: bool,
        priority: int,
    ) -> GroupId:
        """Ask the head for a group; its id is there at once."""
        core, me = self._core, self._core.identity
        core.check_open()
        running = running_call.get()
        creator = running.actor_id if running is not None else ""
        with core.lock:
            group_id = core.new_id()
            word = words.CreateGroup(
                group_id, me.job_id, strategy, bundles, labels, name, namespace or me.namespace, detached, creator, priority
            )
            said = words.say(word)  # Before it is in the book: what cannot be said never existed.
            self._groups[group_id] = GroupClient(group_id)
            core.head_line.push("create group", group_id, said)
        return group_id

    async def wait_ready(self, group_id: GroupId) -> None:
        """Return when every bundle has its place. Raises PlacementGroupError when that will not be."""
        while True:
            waiter = FutureWaiter(self._core.gates.current())
            with self._core.lock:
                self._core.check_open()
                client = self._client(group_id)
                if client.state == "created":
                    return
                error = client.error()
                if error is not None:
                    raise error
                client.waiters.append(waiter)
                self._core.flush_now(self._head())
            await self._wait(client, waiter)

    async def remove(self, group_id: GroupId) -> None:
        """Have it removed; return when the head has taken note."""
        said = False
        while True:
            waiter = FutureWaiter(self._core.gates.current())
            with self._core.lock:
                self._core.check_open()
                client = self._client(group_id)
                if client.state == "removed":
                    return
                client.waiters.append(waiter)
                if not said:
                    for klass in client.classes:
                        # Else the node would end these workers, as it cannot know that they are idle.
                        self._core.tasks.return_idle(klass)
                    self._core.head_line.ask("remove group", group_id, words.say(words.RemoveGroup(group_id)))
                    self._core.flush_now(self._head())
                    said = True
            await self._wait(client, waiter)

    def why_waiting(self, group_id: GroupId) -> str:
        """The head's reason why it has no place yet; empty when it has given none."""
        with self._core.lock:
            client = self._groups.get(group_id)
            return client.reason if client is not None else ""

    async def find(self, name: str, namespace: str) -> words.GroupFound:
        """The group of this name; its id is empty when there is none."""
        core = self._core
        waiter = FutureWaiter(core.gates.current())
        answer: list[words.GroupFound] = []
        with core.lock:
            core.check_open()
            self._tokens += 1
            token = self._tokens

            def answered(word: words.GroupFound) -> None:
                answer.append(word)
                waiter.settled(word)

            self._answers[token] = answered
            question = words.say(words.FindGroup(token, name, namespace or core.identity.namespace))
            core.flush_now(core.head_line.ask("group", token, question))
        try:
            await core.caller.blocked(waiter.future)
        finally:
            with core.lock:
                self._answers.pop(token, None)
                core.head_line.answered("group", token)
        if not answer:
            core.check_open()
        return answer[0]

    def _head(self) -> Peer:
        """The head, with its answers read by the loop that waits for them: a wake-up less for each."""
        head = self._core.head
        if head is not self._shared and head.role and self._core.ports.reads is not None:
            self._shared = head
            self._core.ports.loop.call_soon_threadsafe(head.share_reads)
        return head

    async def _wait(self, client: GroupClient, waiter: FutureWaiter) -> None:
        try:
            await self._core.caller.blocked(waiter.future)
        finally:
            with self._core.lock:
                if waiter in client.waiters:
                    client.waiters.remove(waiter)

    # -- word from the head

    def on_word(self, peer: Peer, message: GroupWord) -> None:
        """The head says something about a group."""
        try:
            word = words.hear(message)
            handle = self._handlers[type(word)]
        except (ProtocolError, KeyError) as error:
            log.error("%s says of groups what a %s does not take; its connection is closed: %s", peer, self._core.identity.role, error)
            peer.close(abort=True)
            return
        handle(word)

    def _on_state(self, word: words.GroupState) -> None:
        self._heard(word.group_id, removed=word.state == "removed")
        client = self._groups.get(word.group_id)
        if client is None:
            return
        client.state, client.reason, client.infeasible = word.state, word.reason, word.infeasible
        client.nodes, client.addresses, client.bundles = word.nodes, word.addresses, word.bundles
        client.doubted = False
        self._changed(client)

    def _heard(self, group_id: GroupId, *, removed: bool) -> None:
        self._core.head_line.answered("create group", group_id)
        if removed:
            self._core.head_line.answered("remove group", group_id)

    def _watch_again(self) -> None:
        """The head is back."""
        for group_id in self._groups:
            if self._core.head_line.asked("create group", group_id) is None:
                self._core.head.send(words.say(words.WatchGroup(group_id)))

    def _on_refused(self, word: words.GroupRefused) -> None:
        self._heard(word.group_id, removed=True)
        client = self._groups.get(word.group_id)
        if client is not None:
            client.state, client.reason, client.refused = "removed", word.reason, True
            self._changed(client)

    def _on_found(self, word: words.GroupFound) -> None:
        answered = self._answers.pop(word.token, None)
        if answered is not None:
            answered(word)

    def _changed(self, client: GroupClient) -> None:
        if client.state == "removed":
            del self._groups[client.group_id]
            self._removed[client.group_id] = client
            while len(self._removed) > REMOVED_MAX:
                self._removed.popitem(last=False)
        waiters, client.waiters = client.waiters, []
        for waiter in waiters:
            waiter.settled(client)
        for klass in list(client.classes):
            self._look_at(client, klass)

    def _look_at(self, client: GroupClient, klass: LeaseClass) -> None:
        """There is news for tasks that wait (GC-2)."""
        if client.state == "removed":
            del client.classes[klass]
            self._core.tasks.fail_class(klass, partial(self._task_error, client), drop=True)
        elif client.hopeless:  # The class is kept: it may have hope once more, and goes when the group is removed.
            self._core.tasks.fail_class(klass, partial(self._task_error, client), drop=False)
        elif why := client.why_never(klass):
            self._core.tasks.fail_class(klass, lambda call: unschedulable(call, why), drop=False)
        else:
            self._core.pump_later(klass)

    def _task_error(self, client: GroupClient, call: Call) -> Exception:
        if client.hopeless:
            return unschedulable(call, client.error())
        return self.removed_error(call.options.placement, call.target.name)

    def removed_error(self, placement: str, task: str) -> TaskPlacementGroupRemoved:
        """Why a task cannot run, or go on: its group is gone."""
        group_id, _ = group_of(placement)
        client = self._removed.get(group_id)
        reason = client.reason if client is not None else "it was removed"
        return TaskPlacementGroupRemoved.explain(
            which=task, what=f"cannot run: its placement group {group_id} is no more", why=reason, group_id=group_id, function_name=task
        )

    def fail_all(self) -> None:
        """The cluster is gone: nothing will be said any more."""
        for client in self._groups.values():
            waiters, client.waiters = client.waiters, []
            for waiter in waiters:
                waiter.settled(None)
        answers, self._answers = self._answers, {}
        for token, answered in answers.items():
            answered(words.GroupFound(token))

    # -- the way of a task

    def _client(self, group_id: GroupId) -> GroupClient:
        client = self._groups.get(group_id) or self._removed.get(group_id)
        if client is None:
            client = self._groups[group_id] = GroupClient(group_id)
            self._core.head.send(words.say(words.WatchGroup(group_id)))
        return client

    def route(self, klass: LeaseClass) -> list[Peer]:
        """The nodes to ask for leases of this class, once for each request that is to be made now (GC-1)."""
        group_id, index = group_of(klass.options.placement)
        client = self._client(group_id)
        client.classes[klass] = None
        if client.state == "removed" or client.hopeless:
            # Not from here: who asks is in the middle of its queue.
            self._core.later(0.0, partial(self._look_at_later, client, klass))
            return []
        if client.doubted or client.state not in ("created", "rescheduling"):
            return []
        want = min(len(klass.queue), REQUESTS_MAX) - len(klass.requests)
        if index >= 0:
            node_id = client.nodes[index]
            return [self._node(client, node_id)] * max(0, want) if node_id else []
        return self._spread(client, klass, want)

    def _spread(self, client: GroupClient, klass: LeaseClass, want: int) -> list[Peer]:
        """Any bundle will do: every node of the group is asked, as only they know what is free in their bundles."""
        demand = klass.options.resources
        fitting = [node_id for node_id, bundle in zip(client.nodes, client.bundles, strict=True) if node_id and could_hold(bundle, demand)]
        if not fitting:
            if client.why_never(klass):
                self._core.later(0.0, partial(self._look_at_later, client, klass))
            return []  # Else what could hold it is only without a place: the head says when it has one (GC-2).
        asked: dict[Peer, int] = dict.fromkeys((self._node(client, node_id) for node_id in dict.fromkeys(fitting)), 0)
        for peer in self._core.tasks.asked_by(klass):
            if peer in asked:
                asked[peer] += 1
        nodes: list[Peer] = []
        room = REQUESTS_MAX - len(klass.requests)
        want = max(want, sum(1 for count in asked.values() if not count)) if klass.queue else 0
        for _ in range(min(want, room)):
            least = min(asked, key=lambda peer: asked[peer])
            asked[least] += 1
            nodes.append(least)
        return nodes

    def _node(self, client: GroupClient, node_id: str) -> Peer:
        core = self._core
        return core.node if node_id == core.node_id else core.peer(node_id, client.addresses[node_id])

    def _look_at_later(self, client: GroupClient, klass: LeaseClass) -> None:
        if klass in client.classes:
            self._look_at(client, klass)

    def contradicted(self, klass: LeaseClass) -> None:
        """A node of the group does not have the bundle, or is gone: the head will say what is new, or is asked."""
        client = self._client(group_of(klass.options.placement)[0])
        if not client.doubted and client.state != "removed":
            client.doubted = True
            self._ask_later(client, ASK_AGAIN_S)

    def _ask_later(self, client: GroupClient, delay_s: float) -> None:
        if not client.asking:
            client.asking = True
            self._core.later(delay_s, partial(self._ask_again, client))

    def _ask_again(self, client: GroupClient) -> None:
        client.asking = False
        if client.doubted and client.state != "removed":
            self._core.head.send(words.say(words.WatchGroup(client.group_id)))
            self._ask_later(client, UNANSWERED_S)
