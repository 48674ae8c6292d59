"""The head's supervisions: the failures of actors become events of the policy, its decisions those of the table of actors.

This room is opened by the first supervision. The policy is `policy/supervision.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from actorflow._core.base.ids import ProcessId
from actorflow._core.head.actors import Actors
from actorflow._core.head.directory import Directory
from actorflow._core.head.nodes import Touch, nothing
from actorflow._core.io.peers import Peer
from actorflow._core.io.ports import Ports
from actorflow._core.policy.actor_decisions import Decision, Forget, LifeLost
from actorflow._core.policy.graveyard import FORGOTTEN, DeadActor
from actorflow._core.policy.supervision import (
    Bounce,
    EndMember,
    Strategy,
    Supervision,
    SupervisionBook,
    SupervisionDecision,
    Unsupervised,
)
from actorflow._core.protocol.messages import Supervise, SuperviseReply, SupervisionOver, Unsupervise

OVER_MAX = 1_000
"""Ends of supervisions that are remembered."""


class Supervisions:
    """See the module. The one writer of the book."""

    def __init__(self, ports: Ports, directory: Directory, actors: Actors) -> None:
        self._ports = ports
        self._directory = directory
        self._actors = actors
        self.touch: Touch = nothing
        """As in Nodes."""
        self.over: OrderedDict[str, SupervisionOver] = OrderedDict()
        """How the last ones ended: who was away then may ask again."""
        self.book = SupervisionBook(name_of=self._name)
        """To be read by others, written here."""
        self._watchers: dict[str, dict[ProcessId, None]] = {}
        """Who else than its owner wants to be told of the end of one. Not remembered: after this life of the head they ask again."""

    # -- from drivers and workers

    def begin(self, peer: Peer, message: Supervise) -> None:
        """These belong together."""
        found = self.book.find(message.supervision_id)
        if found is not None:
            self._watch(peer, found)
            peer.send(SuperviseReply(message.supervision_id))
            return
        if message.again:
            over = self.over.get(message.supervision_id)
            peer.send(over or SupervisionOver(message.supervision_id, "it is not known any more how it ended"))
            return
        dead, problem = self._dead_member(message)
        problem = problem or self._problem(message)
        if not problem:
            one = Supervision(
                message.supervision_id,
                peer.process_id,
                peer.job_id,
                message.members,
                Strategy(message.strategy),
                message.max_restarts,
                message.within_s,
                message.detached,
            )
            problem = self.book.problem_with(one)
            if not problem:
                self.book.begin(one)
                self.touch("supervision", "")
                for member in message.members:
                    self._actors.table.supervise(member, True)
        peer.send(SuperviseReply(message.supervision_id, problem, dead))

    def end(self, peer: Peer, message: Unsupervise) -> None:
        """Each on its own again."""
        found = self.book.find(message.supervision_id)
        if found is None:
            peer.send(self.over.get(message.supervision_id) or SupervisionOver(message.supervision_id, "it is over already"))
            return
        self._watch(peer, found)
        self._actors.supervised(self._carry_out(self.book.end(message.supervision_id, f"{peer.role} {peer.process_id} ended it")))

    def owner_lost(self, process_id: ProcessId, reason: str) -> None:
        """A process is gone."""
        for watchers in self._watchers.values():
            watchers.pop(process_id, None)
        self._actors.supervised(self._carry_out(self.book.owner_lost(process_id, reason)))

    # -- from the actors

    def lost(self, decision: LifeLost) -> list[Decision]:
        """A member has lost its incarnation."""
        cause, now = _first_line(decision.cause), self._ports.monotonic()
        return self._carry_out(self.book.lost(decision.actor_id, cause, asked=decision.asked, now=now, ending=decision.ending))

    def dead(self, decision: Forget) -> list[Decision]:
        """An actor is gone for good."""
        return self._carry_out(self.book.dead(decision.actor_id, decision.died.kind, _first_line(decision.died.reason)))

    def _watch(self, peer: Peer, one: Supervision) -> None:
        if peer.process_id != one.owner:
            self._watchers.setdefault(one.id, {})[peer.process_id] = None

    def _remember(self, over: SupervisionOver) -> None:
        self.over[over.supervision_id] = over
        self.touch("over", over.supervision_id)
        while len(self.over) > OVER_MAX:
            self.touch("over", self.over.popitem(last=False)[0])

    # -- after the head's earlier life

    def restore_over(self, over: SupervisionOver) -> None:
        """How one ended."""
        self.over[over.supervision_id] = over

    def restore(self, one: Supervision) -> None:
        """One of then."""
        self.book.begin(one)
        for member in one.members:
            self._actors.table.supervise(member, True)

    # -- steps

    def _problem(self, message: Supervise) -> str:
        if message.strategy not in [strategy.value for strategy in Strategy]:
            return f"there is no strategy {message.strategy!r}"
        if message.max_restarts < 0 or not message.within_s > 0:
            return f"max_restarts={message.max_restarts} within {message.within_s} s is no bound"
        for member in message.members:
            if member in self.over:
                return f"{self._name(member)} has ended: {self.over[member].reason}"
        return ""

    def _dead_member(self, message: Supervise) -> tuple[str, str]:
        """The first that is an actor and does not live, and why not."""
        table = self._actors.table
        for member in message.members:
            if self.book.find(member) is None and member not in self.over and member not in table.living():
                found = table.find(member)
                return member, found.died.reason if isinstance(found, DeadActor) else FORGOTTEN
        return "", ""

    def _name(self, member: str) -> str:
        one = self.book.find(member)
        if one is not None or member in self.over:
            return f"supervision {member}" + (f" ({one.strategy.value})" if one is not None else "")
        actor = self._actors.table.find(member)
        if actor is None:
            return f"actor {member}"
        return f"actor {actor.class_name if isinstance(actor, DeadActor) else actor.spec.class_name} ({member})"

    def _carry_out(self, steps: Iterable[SupervisionDecision]) -> list[Decision]:
        self.touch("supervision", "")
        table, now = self._actors.table, self._ports.monotonic()
        decisions: list[Decision] = []
        for step in steps:
            if isinstance(step, Bounce):
                decisions += table.bounce(step.actor_id, step.reason, now)
            elif isinstance(step, EndMember):
                decisions += table.given_up(step.actor_id, step.reason, now)
            elif isinstance(step, Unsupervised):
                table.supervise(step.actor_id, False)
            else:
                over = SupervisionOver(step.supervision, step.reason, step.gave_up, step.final)
                for process_id in (step.owner, *self._watchers.pop(step.supervision, ())):
                    self._directory.send(process_id, over)
                self._remember(over)
        return decisions


def _first_line(text: str) -> str:
    return text.partition("\n")[0].rstrip(".")
