"""Random histories of the actor table against a small model of the world: what must hold whatever happens.

The model is what nodes and watchers see: processes that were placed and have not ended, and the last
thing that each watcher was told. AC-n are the invariants of policy/actors.py.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorflow._core.policy.actor_decisions import Answer, Decision, FindNode, Forget, Place, Publish, Stop
from actorflow._core.policy.actor_record import Actor, State
from actorflow._core.policy.actors import ActorTable
from actorflow._core.protocol.messages import ActorDied, ActorSpec

NODES = ("node-1", "node-2")
OWNERS = ("driver-1", "driver-2", "worker-1", "worker-2")
WATCHERS = ("watcher-1", "watcher-2")
JOBS = ("job-1", "job-2")
NAMES = ("", "", "one", "two")
LIVING_MAX = 5
"""Few actors live long lives: more of them would each see less."""


class Histories(RuleBasedStateMachine):
    """Each rule is one event, told to the table as a node, an owner or a watcher would."""

    def __init__(self) -> None:
        super().__init__()
        self.table = ActorTable(place_timeout_s=5.0)
        self.now = 0.0
        self.made = 0
        self.ids: list[str] = []
        self.nodes = set(NODES)
        self.gone: set[str] = set()
        self.ended_jobs: set[str] = set()
        self.finding: list[tuple[str, int]] = []
        self.processes: dict[str, tuple[int, str]] = {}
        self.stopping: dict[tuple[str, int], bool] = {}
        self.spent: Counter[str] = Counter()
        self.placed: Counter[str] = Counter()
        self.dead: dict[str, str] = {}
        self.forgotten: set[str] = set()
        self.watching: set[tuple[str, str]] = set()
        self.last_told: dict[tuple[str, str], str] = {}

    # -- the world's side of decisions

    def do(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            match decision:
                case FindNode(actor_id, incarnation):
                    self.finding.append((actor_id, incarnation))
                case Place(node_id, incarnation, spec):
                    assert spec.actor_id not in self.processes, "AC-1: two live incarnations"
                    assert spec.actor_id not in self.dead, "AC-2: a dead actor was placed"
                    assert incarnation > self.placed[spec.actor_id], "AC-6: fencing needs fresh numbers"
                    self.placed[spec.actor_id] = incarnation
                    self.processes[spec.actor_id] = (incarnation, node_id)
                case Stop(node_id, actor_id, incarnation, graceful):
                    if self.processes.get(actor_id) == (incarnation, node_id):
                        self.stopping[actor_id, incarnation] = graceful
                case Publish(watchers, state):
                    for watcher in watchers:
                        key = (watcher, state.actor_id)
                        # A repeated watch is answered from memory: dead may be told twice, but nothing
                        # after it.
                        assert self.last_told.get(key) != "dead" or state.state == "dead", "AC-2: told after death"
                        self.last_told[key] = state.state
                        assert (state.died is None) == (state.state in ("pending", "alive"))
                    if state.died is not None and state.died.kind == "forgotten":
                        self.forgotten.add(state.actor_id)
                case Forget(actor_id):
                    assert actor_id not in self.dead, "AC-2: died twice"
                    found = self.table.find(actor_id)
                    assert found is not None
                    assert not isinstance(found, Actor)
                    self.dead[actor_id] = found.died.kind
                case Answer(to, reply):
                    if not reply.error:
                        self.watching.add((to, reply.existing or reply.actor_id))

    def some(self, index: int) -> str:
        return self.ids[index % len(self.ids)]

    def process(self, index: int) -> tuple[str, int, str]:
        actor_id = list(self.processes)[index % len(self.processes)]
        return (actor_id, *self.processes[actor_id])

    # -- events

    @initialize()
    def first(self) -> None:
        self.create("driver-1", "job-1", "one", False, 1, False)

    @rule(
        owner=st.sampled_from(OWNERS),
        job=st.sampled_from(JOBS),
        name=st.sampled_from(NAMES),
        detached=st.booleans(),
        max_restarts=st.integers(-1, 2),
        get_if_exists=st.booleans(),
    )
    def create(self, owner: str, job: str, name: str, detached: bool, max_restarts: int, get_if_exists: bool) -> None:
        if owner in self.gone or len(self.table.living()) >= LIVING_MAX:
            return
        self.made += 1
        actor_id = f"actor-{self.made}"
        self.ids.append(actor_id)
        spec = ActorSpec(
            actor_id, job, owner, "", "class", "Class", b"", b"", b"", None, None, None, {}, name=name,
            namespace="default", detached=detached, max_restarts=max_restarts,
        )  # fmt: skip
        holder = self.table.living().named("default", name)
        decisions = self.table.create(spec, owner, get_if_exists=get_if_exists, job_over=job in self.ended_jobs, now=self.now)
        assert isinstance(decisions[0], Answer)
        refused = bool(decisions[0].reply.error or decisions[0].reply.existing)
        if actor_id in self.forgotten:
            assert not refused
            assert not any(isinstance(d, FindNode) for d in decisions), "AC-2: somebody was told that it is dead"
            self.dead[actor_id] = "forgotten"
        else:
            assert refused or holder is None, "AC-4: two actors with one name"
        if refused:
            self.dead[actor_id] = "refused"
        self.do(decisions)

    @rule(index=st.integers(0, 50), detached=st.booleans())
    @precondition(lambda self: self.processes)
    def create_child(self, index: int, detached: bool) -> None:
        """An actor creates another one."""
        parent = self.table.find(self.process(index)[0])
        if isinstance(parent, Actor) and parent.worker_id:
            self.create(parent.worker_id, parent.spec.job_id, "", detached, 1, False)

    @rule()
    def everybody_gets_on(self) -> None:
        """All that are looking for a node find one and get ready: the state most histories are in."""
        self.node_joined("node-1")
        while self.finding:
            self.find_node(0, "node-1", False)
        for index in range(len(self.processes)):
            self.ready(index)

    @rule(index=st.integers(0, 50), node=st.sampled_from(NODES), infeasible=st.booleans())
    @precondition(lambda self: self.finding)
    def find_node(self, index: int, node: str, infeasible: bool) -> None:
        actor_id, incarnation = self.finding.pop(index % len(self.finding))
        if node in self.nodes:
            self.do(self.table.placed(actor_id, incarnation, node, self.now))
        else:
            self.do(self.table.not_placed(actor_id, incarnation, "none", infeasible=infeasible, now=self.now))

    @rule(index=st.integers(0, 50))
    @precondition(lambda self: self.processes)
    def ready(self, index: int) -> None:
        actor_id, incarnation, node = self.process(index)
        worker = f"worker-{actor_id}-{incarnation}"
        self.do(self.table.ready(actor_id, incarnation, node, worker, "unix:/w", self.now))

    @rule(index=st.integers(0, 50))
    @precondition(lambda self: self.processes)
    def fail(self, index: int) -> None:
        actor_id, incarnation, node = self.process(index)
        found = self.table.find(actor_id)
        if isinstance(found, Actor) and found.state is State.ALIVE:
            return
        self.forget_process(actor_id, incarnation)
        self.do(self.table.failed(actor_id, incarnation, node, ActorDied("init_failed", "no"), self.now))

    @rule(index=st.integers(0, 50), spent=st.booleans(), by_itself=st.sampled_from([False, False, True]))
    @precondition(lambda self: self.processes)
    def process_ends(self, index: int, spent: bool, by_itself: bool) -> None:
        actor_id, incarnation, node = self.process(index)
        expected = (actor_id, incarnation) in self.stopping or by_itself
        self.forget_process(actor_id, incarnation)
        before = self.table.find(actor_id)
        must_restart = False
        if isinstance(before, Actor) and before.leaving is None and (before.bouncing or not expected):
            limit = before.spec.max_restarts
            must_restart = not spent or limit < 0 or self.spent[actor_id] < limit
        decisions = self.table.lost(actor_id, incarnation, node, "ended", expected=expected, spent=spent, now=self.now)
        restarts = any(isinstance(d, FindNode) for d in decisions)
        assert restarts == must_restart, "AC-3, SEMANTICS 22 and 23"
        if restarts:
            self.spent[actor_id] += spent
        self.do(decisions)

    @rule(index=st.integers(0, 50), no_restart=st.booleans(), graceful=st.booleans())
    def kill(self, index: int, no_restart: bool, graceful: bool) -> None:
        decisions = self.table.kill(self.some(index), no_restart=no_restart, graceful=graceful, by="a test", now=self.now)
        self.do(decisions)

    @rule(index=st.integers(0, 50))
    def out_of_scope(self, index: int) -> None:
        self.do(self.table.out_of_scope(self.some(index), self.now))

    @rule(owner=st.sampled_from(OWNERS))
    def owner_lost(self, owner: str) -> None:
        self.gone.add(owner)
        self.forget_watcher(owner)
        self.do(self.table.owner_lost(owner, "reset", self.now))
        assert all(actor.spec.detached for actor in self.table.living().owned_by(owner))

    @rule(job=st.sampled_from(JOBS))
    def job_ended(self, job: str) -> None:
        self.ended_jobs.add(job)
        detached = [actor for actor in self.table.living().of_job(job) if actor.spec.detached]
        self.do(self.table.job_ended(job, "its driver is gone", self.now))
        left = self.table.living().of_job(job)
        assert all(actor in left for actor in detached)
        workers = {actor.worker_id for actor in left}
        assert all(actor.spec.detached or actor.spec.owner in workers for actor in left)

    @rule(node=st.sampled_from(NODES))
    def node_lost(self, node: str) -> None:
        self.nodes.discard(node)
        for actor_id, (incarnation, where) in list(self.processes.items()):
            if where == node:
                self.forget_process(actor_id, incarnation)
        decisions = self.table.node_lost(node, "reset", self.now)
        self.spent.update(d.actor_id for d in decisions if isinstance(d, FindNode))
        self.do(decisions)

    @rule(node=st.sampled_from(NODES))
    def node_joined(self, node: str) -> None:
        self.nodes.add(node)
        self.do(self.table.node_joined(node))

    @rule(watcher=st.sampled_from(WATCHERS), index=st.integers(0, 50), unknown=st.booleans())
    def watch(self, watcher: str, index: int, unknown: bool) -> None:
        actor_id = f"actor-{self.made + 1}" if unknown else self.some(index)
        self.watching.add((watcher, actor_id))
        self.do(self.table.watch(actor_id, watcher, self.now))

    @rule(watcher=st.sampled_from(WATCHERS))
    def forget_watcher(self, watcher: str) -> None:
        self.table.watcher_lost(watcher)
        self.watching = {(who, actor_id) for who, actor_id in self.watching if who != watcher}

    @rule(seconds=st.sampled_from([0.1, 6.0, 12.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.table.tick(self.now))
        deadline = self.table.next_deadline()
        assert deadline is None or deadline > self.now

    @rule(index=st.integers(0, 50), back=st.integers(1, 3), node=st.sampled_from([*NODES, ""]))
    def stale_words(self, index: int, back: int, node: str) -> None:
        """AC-6: nothing but a stop comes of them."""
        actor_id = self.some(index)
        found = self.table.find(actor_id)
        incarnation = (found.incarnation if found is not None else 1) - back
        died = ActorDied("init_failed", "late")
        assert self.table.failed(actor_id, incarnation, node, died, self.now) == []
        lost = self.table.lost(actor_id, incarnation, node, "late", expected=False, spent=True, now=self.now)
        assert lost == []
        ready = self.table.ready(actor_id, incarnation, node, "worker", "unix:/w", self.now)
        assert ready == [Stop(node, actor_id, incarnation, graceful=False)]
        assert self.table.placed(actor_id, incarnation, "node-1", self.now) == []

    def forget_process(self, actor_id: str, incarnation: int) -> None:
        del self.processes[actor_id]
        self.stopping.pop((actor_id, incarnation), None)

    # -- what holds at any time

    @invariant()
    def the_dead_stay_dead(self) -> None:
        living = {actor.spec.actor_id for actor in self.table.living()}
        assert not living & self.dead.keys(), "AC-2"
        assert living | self.dead.keys() == set(self.ids)

    @invariant()
    def restarts_are_counted(self) -> None:
        for actor in self.table.living():
            limit = actor.spec.max_restarts
            assert actor.restarts == self.spent[actor.spec.actor_id], "AC-3, SEMANTICS 22"
            assert limit < 0 or actor.restarts <= limit, "AC-3"

    @invariant()
    def names_are_unique(self) -> None:
        names = Counter(actor.spec.name for actor in self.table.living() if actor.spec.name)
        assert all(count == 1 for count in names.values()), "AC-4"
        assert all(self.table.living().named("default", name) for name in names)

    @invariant()
    def every_watcher_knows_the_last_state(self) -> None:
        for watcher, actor_id in self.watching:
            found = self.table.find(actor_id)
            if isinstance(found, Actor):
                assert self.last_told.get((watcher, actor_id), "pending") == found.state.value
                assert watcher in found.watchers
            elif found is not None:
                assert self.last_told[watcher, actor_id] == "dead", "AC-5"

    @invariant()
    def who_is_alive_has_a_process(self) -> None:
        for actor in self.table.living():
            place = self.processes.get(actor.spec.actor_id)
            if actor.node_id:
                assert place == (actor.incarnation, actor.node_id)
            else:
                assert place is None, "AC-1"
                assert actor.state is not State.ALIVE

    @invariant()
    def who_has_no_place_is_being_placed(self) -> None:
        """Nobody is left behind: an actor without a node has a search under way, or waits for a node."""
        waiting = {d.actor_id for d in self.table.node_joined("another") if isinstance(d, FindNode)}
        for actor in self.table.living():
            key = (actor.spec.actor_id, actor.incarnation)
            assert actor.node_id or key in self.finding or actor.spec.actor_id in waiting

    def teardown(self) -> None:
        """Whatever came before, when all owners and jobs are gone only detached actors are left."""
        for job in JOBS:
            self.job_ended(job)
        for actor_id in self.ids:
            found = self.table.find(actor_id)
            if isinstance(found, Actor) and not found.spec.detached:
                self.do(self.table.owner_lost(found.spec.owner, "reset", self.now))
        assert all(actor.spec.detached for actor in self.table.living())
        self.every_watcher_knows_the_last_state()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=max(200, settings().max_examples), stateful_step_count=60)
