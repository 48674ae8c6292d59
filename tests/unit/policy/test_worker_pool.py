"""The worker pool: reuse, starting, ending, failures, hosts. No loop, no clock, no process."""

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorflow._core.policy.worker_pool import PoolLimits, WorkerPool
from actorflow._core.policy.worker_records import (
    Claim,
    Decision,
    Purpose,
    Refuse,
    Retire,
    Spawn,
    Use,
    WorkerKey,
    WorkerState,
)

JOB = WorkerKey("job")
OTHER = WorkerKey("job", '{"env_vars": {"A": "1"}}')


class Bench:
    """A pool and its clock."""

    def __init__(self, **limits: float) -> None:
        self.pool = WorkerPool(PoolLimits(**({"idle_keep": 2} | limits)))
        self.now = 0.0
        self.ids = map("w{}".format, itertools.count())

    def decide(self) -> list[Decision]:
        decisions = self.pool.decide(self.now, self.ids.__next__)
        self.pool.check()
        return decisions

    def claim(self, key: WorkerKey = JOB, purpose: Purpose = Purpose.LEASE, **options: bool) -> Claim:
        return self.pool.claim(key, purpose, None, **options)

    def spawned(self) -> list[str]:
        """The ids of the workers to start now; nothing else must have been decided."""
        decisions = self.decide()
        assert all(isinstance(decision, Spawn) for decision in decisions), decisions
        return [decision.worker_id for decision in decisions]

    def up(self, key: WorkerKey = JOB) -> str:
        """A worker that is up and idle."""
        claim = self.claim(key)
        [worker_id] = self.spawned()
        self.pool.drop(claim)
        assert self.pool.registered(worker_id, self.now)
        assert self.decide() == []
        return worker_id

    def state(self, worker_id: str) -> WorkerState:
        return self.pool.workers[worker_id].state


# Using and starting -----------------------------------------------------------------------------------------


def test_a_claim_starts_a_worker_and_gets_it_when_it_is_up() -> None:
    bench = Bench()
    claim = bench.claim()
    [worker_id] = bench.spawned()
    assert bench.state(worker_id) is WorkerState.STARTING
    assert bench.pool.registered(worker_id, 0.0)
    assert bench.decide() == [Use(worker_id, claim)]
    assert bench.state(worker_id) is WorkerState.LEASED


def test_a_worker_that_is_given_back_is_used_again() -> None:
    bench = Bench()
    worker_id = bench.up()
    for _ in range(3):
        claim = bench.claim()
        assert bench.decide() == [Use(worker_id, claim)]
        bench.pool.release(worker_id, bench.now)


def test_only_a_worker_with_the_same_key_is_used() -> None:
    bench = Bench()
    bench.up(JOB)
    bench.claim(OTHER)
    [decision] = bench.decide()
    assert isinstance(decision, Spawn)
    assert decision.key == OTHER


def test_the_worker_that_comes_up_first_serves_the_claim_that_came_first() -> None:
    bench = Bench()
    first, second = bench.claim(), bench.claim()
    one, two = bench.spawned()
    bench.pool.registered(two, 0.0)
    assert bench.decide() == [Use(two, first)]
    bench.pool.registered(one, 0.0)
    assert bench.decide() == [Use(one, second)]


def test_a_dropped_claim_leaves_an_idle_worker() -> None:
    bench = Bench()
    claim = bench.claim()
    [worker_id] = bench.spawned()
    bench.pool.drop(claim)
    bench.pool.registered(worker_id, 0.0)
    assert bench.decide() == []
    assert bench.state(worker_id) is WorkerState.IDLE


def test_wp_2_only_so_many_start_at_one_time_and_keys_take_turns() -> None:
    bench = Bench(starting_max=2)
    for _ in range(3):
        bench.claim(JOB)
    bench.claim(OTHER)
    first = bench.decide()
    assert [decision.key for decision in first] == [JOB, OTHER] or [d.key for d in first] == [OTHER, JOB]
    bench.pool.registered(first[0].worker_id, 0.0)
    assert sum(isinstance(decision, Spawn) for decision in bench.decide()) == 1


def test_a_job_begins_with_some_workers() -> None:
    bench = Bench()
    bench.pool.prestart(JOB, 2)
    one, two = bench.spawned()
    assert bench.decide() == []
    bench.pool.registered(one, 0.0)
    claim = bench.claim()
    assert bench.decide() == [Use(one, claim)], "a used worker is not replaced beforehand"
    bench.pool.registered(two, 0.0)
    assert bench.decide() == []


def test_an_unknown_worker_must_go() -> None:
    bench = Bench()
    assert not bench.pool.registered("stranger", 0.0)
    worker_id = bench.up()
    assert not bench.pool.registered(worker_id, 0.0)


# Ending -----------------------------------------------------------------------------------------------------


def test_idle_workers_over_the_soft_limit_end_after_the_timeout_and_the_rest_stays() -> None:
    bench = Bench(idle_keep=1, idle_timeout_s=5.0)
    claims = [bench.claim() for _ in range(3)]
    workers = bench.spawned()
    for worker_id in workers:
        bench.pool.registered(worker_id, 0.0)
    assert len(bench.decide()) == len(claims)
    for at, worker_id in enumerate(workers):
        bench.pool.release(worker_id, float(at))
    assert bench.pool.has_deadlines
    bench.pool.expire(4.9)
    assert bench.decide() == []
    bench.pool.expire(60.0)
    assert [decision.worker_id for decision in bench.decide()] == workers[:2], "those idle for longest"
    assert not bench.pool.has_deadlines
    bench.pool.expire(1e9)
    assert bench.decide() == []


def test_a_retired_worker_is_not_used_again() -> None:
    bench = Bench()
    worker_id = bench.up()
    bench.claim()
    bench.decide()
    bench.pool.release(worker_id, 0.0, retire=True)
    [decision] = bench.decide()
    assert decision == Retire(worker_id, decision.reason)
    bench.claim()
    assert len(bench.spawned()) == 1


def test_a_retired_worker_may_be_asked_and_is_not_used_again_either() -> None:
    bench = Bench()
    worker_id = bench.up()
    bench.claim()
    bench.decide()
    bench.pool.release(worker_id, 0.0, retire=True, ask=True)
    [decision] = bench.decide()
    assert decision == Retire(worker_id, decision.reason, ask=True)
    bench.claim()
    assert len(bench.spawned()) == 1


def test_an_idle_worker_that_is_needed_is_idle_again_and_asked_again_later() -> None:
    bench = Bench(idle_keep=0, idle_timeout_s=1.0)
    worker_id = bench.up()
    bench.pool.expire(1.0)
    [asked] = bench.decide()
    assert asked == Retire(worker_id, "idle for 1 s", ask=True)
    bench.pool.needed(worker_id, 1.5)
    bench.pool.check()
    bench.pool.expire(2.0)
    assert bench.decide() == []
    bench.pool.expire(2.5)
    assert len(bench.decide()) == 1
    bench.pool.check()


def test_a_late_starter_is_killed_counts_as_failed_and_is_replaced() -> None:
    bench = Bench(register_timeout_s=30.0)
    bench.claim()
    [late] = bench.spawned()
    bench.pool.expire(29.0)
    assert bench.decide() == []
    bench.pool.expire(30.0)
    killed, replacement = bench.decide()
    assert killed == Retire(late, "it did not connect to the node within 30 s", kill=True)
    assert isinstance(replacement, Spawn)
    assert not bench.pool.registered(late, 31.0)


def test_a_dedicated_actors_worker_is_never_used_again() -> None:
    bench = Bench()
    worker_id = bench.up()
    bench.claim(purpose=Purpose.ACTOR)
    bench.decide()
    bench.pool.release(worker_id, 0.0)
    assert bench.state(worker_id) is WorkerState.ACTOR
    bench.claim()
    assert len(bench.spawned()) == 1


def test_the_end_of_a_job_ends_its_unused_workers() -> None:
    bench = Bench(idle_keep=9)
    bench.claim(purpose=Purpose.ACTOR)
    bench.claim()
    for worker_id in bench.spawned():
        bench.pool.registered(worker_id, 0.0)
    actor, leased = [decision.worker_id for decision in bench.decide()]
    idle, other = bench.up(), bench.up(WorkerKey("another job"))
    bench.claim(OTHER)
    [starting] = bench.spawned()
    assert sorted(bench.pool.end_job("job")) == sorted([idle, starting])
    assert [bench.state(w) for w in (idle, starting)] == [WorkerState.DYING] * 2
    used = [WorkerState.ACTOR, WorkerState.LEASED, WorkerState.IDLE]
    assert [bench.state(w) for w in (actor, leased, other)] == used
    assert len(bench.spawned()) == 1, "who still claims a worker of the job gets one"


# Failures (WP-3) --------------------------------------------------------------------------------------------


def test_wp_3_after_three_failures_in_a_row_the_claims_are_refused_with_the_cause() -> None:
    bench = Bench(failures_max=3, failure_backoff_s=5.0)
    claims = [bench.claim(), bench.claim()]
    starts = 0
    while True:
        decisions = bench.decide()
        if not decisions:
            break
        if isinstance(decisions[0], Refuse):
            break
        for decision in decisions:
            starts += 1
            bench.pool.exited(decision.worker_id, 1.0, "exited with code 1: no module named nope")
    assert starts <= 4, "no storm of forks"
    assert [decision.claim for decision in decisions] == claims
    assert "no module named nope" in decisions[0].reason

    bench.now = 3.0
    claim = bench.claim()
    assert bench.decide() == [Refuse(claim, "worker_failed", decisions[0].reason)], "at once, for a while"

    bench.now = 7.0
    bench.claim()
    [again] = bench.spawned()
    bench.pool.registered(again, 7.0)
    assert isinstance(bench.decide()[0], Use)
    bench.claim()
    [one_more] = bench.spawned()
    bench.pool.exited(one_more, 7.0, "killed by SIGKILL")
    assert len(bench.spawned()) == 1, "SF-2: a success forgets the failures"


def test_a_broken_environment_does_not_hurt_another() -> None:
    bench = Bench(failures_max=1)
    bench.claim(OTHER)
    [worker_id] = bench.spawned()
    bench.pool.exited(worker_id, 0.0, "broken")
    assert isinstance(bench.decide()[0], Refuse)
    bench.claim(JOB)
    assert len(bench.spawned()) == 1


def test_a_worker_that_is_ended_while_it_starts_is_not_a_failure() -> None:
    bench = Bench(failures_max=1)
    claim = bench.claim()
    [worker_id] = bench.spawned()
    bench.pool.drop(claim)
    bench.pool.doom(worker_id)
    bench.pool.exited(worker_id, 0.0, "killed by SIGKILL")
    bench.claim()
    assert len(bench.spawned()) == 1


# Full (WP-2) ------------------------------------------------------------------------------------------------


def test_a_full_node_ends_an_idle_worker_for_another_key() -> None:
    bench = Bench(workers_max=2)
    oldest, newest = bench.up(), None
    bench.now = 1.0
    claim = bench.claim()
    bench.decide()
    newest = bench.up()
    bench.pool.release(oldest, 2.0)
    bench.pool.drop(claim)
    wanted = bench.claim(OTHER)
    assert [decision.worker_id for decision in bench.decide()] == [newest], "idle for longest"
    assert bench.decide() == [], "one on its way out is enough"
    bench.pool.exited(newest, 3.0, "")
    [worker_id] = bench.spawned()
    bench.pool.registered(worker_id, 3.0)
    assert bench.decide() == [Use(worker_id, wanted)]


def test_a_node_full_of_actors_refuses_and_says_why() -> None:
    bench = Bench(workers_max=1)
    bench.up()
    bench.claim(purpose=Purpose.ACTOR)
    bench.decide()
    claim = bench.claim(purpose=Purpose.ACTOR)
    [refused] = bench.decide()
    assert isinstance(refused, Refuse)
    assert (refused.claim, refused.kind) == (claim, "full")
    assert "1 worker processes" in refused.reason
    assert 'process="shared"' in refused.reason


def test_a_node_full_of_leases_waits() -> None:
    bench = Bench(workers_max=1)
    worker_id = bench.up()
    bench.claim()
    bench.decide()
    waiting = bench.claim(OTHER)
    assert bench.decide() == []
    bench.pool.release(worker_id, 0.0)
    assert isinstance(bench.decide()[0], Retire)
    bench.pool.exited(worker_id, 0.0, "")
    [fresh] = bench.spawned()
    bench.pool.registered(fresh, 0.0)
    assert bench.decide() == [Use(fresh, waiting)]


# Devices (WP-4) ---------------------------------------------------------------------------------------------


def test_wp_4_idle_workers_leave_a_device_before_another_key_gets_it() -> None:
    bench = Bench()
    mine, yours = WorkerKey("a", "", ("GPU=0",)), WorkerKey("b", "", ("GPU=0", "GPU=1"))
    old = bench.up(mine)
    bench.claim(yours)
    [retired] = bench.decide()
    assert isinstance(retired, Retire)
    assert retired.worker_id == old
    assert bench.decide() == []
    bench.pool.exited(old, 0.0, "")
    assert len(bench.spawned()) == 1


def test_two_shares_of_one_device_run_side_by_side() -> None:
    bench = Bench()
    bench.claim(WorkerKey("a", "", ("GPU=0",)))
    [first] = bench.spawned()
    bench.pool.registered(first, 0.0)
    bench.decide()
    bench.claim(WorkerKey("b", "", ("GPU=0",)))
    assert len(bench.spawned()) == 1


# Hosts (WP-5) -----------------------------------------------------------------------------------------------


def host_with(bench: Bench, count: int, **options: bool) -> str:
    """A host that is up, with `count` actors."""
    claims = [bench.claim(purpose=Purpose.SHARED, **options) for _ in range(count)]
    [worker_id] = bench.spawned()
    bench.pool.registered(worker_id, bench.now)
    assert bench.decide() == [Use(worker_id, claim) for claim in claims]
    assert bench.state(worker_id) is WorkerState.HOST
    return worker_id


def test_wp_5_shared_actors_of_a_job_go_to_one_host() -> None:
    bench = Bench()
    worker_id = host_with(bench, 5)
    claim = bench.claim(purpose=Purpose.SHARED)
    assert bench.decide() == [Use(worker_id, claim)]
    bench.claim(OTHER, purpose=Purpose.SHARED)
    bench.claim(JOB, purpose=Purpose.SHARED, detached=True)
    assert len(bench.spawned()) == 2, "another environment, and actors that outlive the job"


def test_a_full_host_is_followed_by_another() -> None:
    bench = Bench(actors_per_host_max=2)
    first = host_with(bench, 2)
    second = host_with(bench, 1)
    assert first != second
    bench.pool.leave_host(first, 0.0)
    claim = bench.claim(purpose=Purpose.SHARED)
    assert bench.decide() == [Use(second, claim)]


def test_an_idle_worker_becomes_a_host() -> None:
    bench = Bench()
    worker_id = bench.up()
    claim = bench.claim(purpose=Purpose.SHARED)
    assert bench.decide() == [Use(worker_id, claim)]


def test_an_empty_host_ends_and_a_used_one_does_not() -> None:
    bench = Bench(idle_timeout_s=1.0)
    worker_id = host_with(bench, 1)
    bench.pool.leave_host(worker_id, 0.0)
    bench.claim(purpose=Purpose.SHARED)
    bench.decide()
    bench.pool.expire(10.0)
    assert bench.decide() == []
    bench.pool.leave_host(worker_id, 10.0)
    bench.pool.expire(11.0)
    [decision] = bench.decide()
    assert isinstance(decision, Retire)
    bench.claim(purpose=Purpose.SHARED)
    assert len(bench.spawned()) == 1, "a dying host takes in nobody"


def test_a_host_that_cannot_start_refuses_all_who_wait_for_it() -> None:
    bench = Bench(failures_max=1)
    claims = [bench.claim(purpose=Purpose.SHARED) for _ in range(3)]
    [worker_id] = bench.spawned()
    bench.pool.drop(claims.pop(1))
    bench.pool.exited(worker_id, 0.0, "broken")
    assert [decision.claim for decision in bench.decide()] == claims
    bench.now = 60.0
    host_with(bench, 1)


def test_a_dead_host_is_followed_by_another() -> None:
    bench = Bench()
    worker_id = host_with(bench, 3)
    bench.pool.exited(worker_id, 0.0, "killed by SIGSEGV")
    bench.pool.leave_host(worker_id, 0.0)
    assert host_with(bench, 1) != worker_id


# Everything at once -----------------------------------------------------------------------------------------


class Pool(RuleBasedStateMachine):
    """WP-1 to WP-5 under any order of events; and with working starts every claim is served in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Claim] = []
        self.leased: list[str] = []
        self.hosted: list[str] = []

    @initialize(workers_max=st.integers(1, 6), starting_max=st.integers(1, 3), idle_keep=st.integers(0, 2))
    def start(self, workers_max: int, starting_max: int, idle_keep: int) -> None:
        self.bench = Bench(workers_max=workers_max, starting_max=starting_max, idle_keep=idle_keep, actors_per_host_max=3)

    def run(self) -> None:
        for decision in self.bench.decide():
            if isinstance(decision, Use):
                claim = decision.claim
                worker = self.bench.pool.workers[decision.worker_id]
                assert claim.key.job_id == worker.key.job_id, "WP-1"
                self.waiting.remove(claim)
                if claim.purpose is Purpose.LEASE:
                    assert claim.key == worker.key, "WP-1"
                    assert decision.worker_id not in self.leased, "WP-1"
                    self.leased.append(decision.worker_id)
                elif claim.purpose is Purpose.SHARED:
                    self.hosted.append(decision.worker_id)
            elif isinstance(decision, Refuse):
                self.waiting.remove(decision.claim)

    @rule(
        key=st.sampled_from([JOB, OTHER, WorkerKey("job", "", ("GPU=0",)), WorkerKey("b", "", ("GPU=0",))]),
        purpose=st.sampled_from([Purpose.LEASE, Purpose.ACTOR, Purpose.SHARED]),
    )
    def claim(self, key: WorkerKey, purpose: Purpose) -> None:
        key = WorkerKey(key.job_id, key.env) if purpose is Purpose.SHARED else key
        self.waiting.append(self.bench.claim(key, purpose))
        self.run()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        claim = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.bench.pool.drop(claim)
        self.run()

    def some(self, data: st.DataObject, *states: WorkerState) -> str | None:
        workers = [w.worker_id for w in self.bench.pool.workers.values() if w.state in states]
        return data.draw(st.sampled_from(workers)) if workers else None

    @rule(data=st.data())
    def register(self, data: st.DataObject) -> None:
        worker_id = self.some(data, WorkerState.STARTING)
        if worker_id is not None:
            assert self.bench.pool.registered(worker_id, self.bench.now)
            self.run()

    @rule(data=st.data(), how=st.sampled_from(["exited", "doom"]))
    def end(self, data: st.DataObject, how: str) -> None:
        worker_id = self.some(data, *WorkerState)
        if worker_id is None:
            return
        if how == "doom":
            self.bench.pool.doom(worker_id)
        else:
            self.bench.pool.exited(worker_id, self.bench.now, "test")
        self.leased = [w for w in self.leased if w != worker_id]
        self.hosted = [w for w in self.hosted if w != worker_id]
        self.run()

    @precondition(lambda self: self.leased)
    @rule(retire=st.booleans())
    def release(self, retire: bool) -> None:
        self.bench.pool.release(self.leased.pop(), self.bench.now, retire=retire)
        self.run()

    @precondition(lambda self: self.hosted)
    @rule()
    def leave(self) -> None:
        self.bench.pool.leave_host(self.hosted.pop(), self.bench.now)
        self.run()

    @rule(seconds=st.sampled_from([0.5, 6.0, 60.0]))
    def time(self, seconds: float) -> None:
        self.bench.now += seconds
        self.bench.pool.expire(self.bench.now)
        self.run()

    @rule()
    def end_job(self) -> None:
        ended = self.bench.pool.end_job("b")
        self.leased = [w for w in self.leased if w not in ended]
        self.hosted = [w for w in self.hosted if w not in ended]
        self.run()

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "bench"):
            self.bench.pool.check()

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        pool = self.bench.pool
        for _ in range(200):
            self.run()
            self.bench.now += 10.0
            for worker in list(pool.workers.values()):
                if worker.state is WorkerState.STARTING:
                    pool.registered(worker.worker_id, self.bench.now)
                elif worker.state is not WorkerState.IDLE:
                    pool.exited(worker.worker_id, self.bench.now, "test")
        assert self.waiting == [], "a claim was neither served nor refused"


Pool.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestPool = Pool.TestCase


@pytest.mark.parametrize("count", [10_000])
def test_many_shared_actors_cost_no_search(count: int) -> None:
    bench = Bench()
    claims = [bench.claim(purpose=Purpose.SHARED) for _ in range(count)]
    [worker_id] = bench.spawned()
    bench.pool.registered(worker_id, 0.0)
    assert len(bench.decide()) == count
    assert {claim.worker_id for claim in claims} == {worker_id}
