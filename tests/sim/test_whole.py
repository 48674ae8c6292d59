"""The whole under faults: some seeds of it, all that ever failed, and the parts that make it: plans as text, shrinking, markers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actorflow._core.policy.checkpoints import CheckpointStore
from actorflow._core.policy.leases import LeaseBook
from actorflow.testing import Violation
from tests.sim.mutants import Mutant
from tests.sim.whole import again, many
from tests.sim.whole.draw import draw
from tests.sim.whole.faults import FAULTS
from tests.sim.whole.figure import Figure, kind_of
from tests.sim.whole.markers import MARKERS, Marker
from tests.sim.whole.plan import Args, Driver, Plan, PlanError, Step, parse
from tests.sim.whole.run import Outcome, run
from tests.sim.whole.shrink import Shrinker, lines_of, without
from tests.sim.whole.verbs import VERBS

SEEDS = 500


def passes(plan: Plan) -> Outcome:
    outcome = run(plan)
    told = "\n".join(map(str, outcome.violations))
    assert not outcome.violations, f"{told}\nagain: python -m tests.sim.whole --seed {plan.seed}\n{plan}"
    return outcome


@pytest.mark.parametrize("seed", range(SEEDS), ids=lambda seed: f"seed={seed}")
def test_a_seed(seed: int) -> None:
    outcome = passes(draw(seed))
    assert outcome.operations.total() == sum(len(driver.steps) for driver in outcome.plan.drivers) or outcome.faults["kill-driver"]


def test_the_seeds_that_have_failed() -> None:
    for seed in again.failed_seeds():
        passes(draw(seed))


def plan_param(name: str) -> Any:
    defect = again.open_defect(name)
    return pytest.param(name, marks=[pytest.mark.xfail(reason=f"not mended yet: {defect}", strict=True)] if defect else [])


@pytest.mark.parametrize("name", [plan_param(name) for name in again.failed_plans()])
def test_a_plan_that_has_failed(name: str) -> None:
    passes(again.failed_plans()[name])


@pytest.mark.parametrize("seed", [3, 8])
def test_wo_1_a_seed_gives_one_run_and_wt_1_looking_at_the_books_changes_nothing(seed: int) -> None:
    plan = draw(seed)
    digests = {run(replace(plan, args={**plan.args, "books": books})).digest for books in (0, 0, 1)}
    assert len(digests) == 1
    assert run(draw(seed + 1)).digest not in digests


# -- plans


@pytest.mark.parametrize("seed", range(200))
def test_pt_1_a_plan_that_is_printed_and_read_is_the_same(seed: int) -> None:
    plan = draw(seed)
    assert parse(str(plan)) == plan
    assert str(parse(str(plan))) == str(plan)


def test_a_plan_may_have_remarks() -> None:
    text = "# small\nplan seed=1 scheme=unix heal=1.0\n\nnode cpus=1 store=4MiB\ndriver outside=0\n  0.1 error number=3  # why\nfaults\n"
    assert parse(text).drivers == (Driver({"outside": 0}, (Step(0.1, "error", {"number": 3}),)),)
    assert parse(text).faults == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("node cpus=1", "a line `plan seed=...`"),
        ("plan seed=1", "one node at least"),
        ("plan seed=1\nnode cpus", "line 2: 'cpus' is not of the form"),
        ("plan seed=1\nnode cpus=1\n0.1 task", "line 3: '0.1' comes before"),
        ("plan seed=1\nnode cpus=1\nfaults\nsoon reset", "line 4: 'soon' is no moment"),
        ("plan seed=1\nnode cpus=1\nfaults\n0.5", "line 4: what is to happen"),
        ("plan seed=1\nnode cpus=1\nfaults\n0.5 meteor", "line 4: 'meteor'"),
        ("plan seed=1\nnode cpus=1\ndriver\n0.5 reset pick=0.1", "line 4: 'reset'"),
    ],
)
def test_pt_2_what_is_not_understood_names_its_line(text: str, why: str) -> None:
    with pytest.raises(PlanError) as caught:
        again.read(text)
    assert why in str(caught.value)


def test_the_seeds_draw_every_operation_and_every_fault() -> None:
    plans = [draw(seed) for seed in range(600)]
    assert {step.verb for plan in plans for driver in plan.drivers for step in driver.steps} == set(VERBS)
    assert {fault.verb for plan in plans for fault in plan.faults} == set(FAULTS)


# -- what it finds, and how small that gets


def _takes_nothing(original: Any) -> Any:
    def grant(self: Any, ticket: Any, now: float) -> None:
        original(self, ticket, now)
        self._free.add(ticket.demand)

    return grant


def _keeps_nothing(original: Any) -> Any:
    def newest(self: Any, actor_id: str) -> None:
        return None

    return newest


LOSES_STATE = Mutant("state lost", "a checkpoint is not given back", CheckpointStore, "newest", _keeps_nothing)
LENDS_TWICE = Mutant("granted twice", "LE-2: what a lease has taken is granted again", LeaseBook, "_grant", _takes_nothing)


def first_found(mutant: Mutant, seeds: int) -> Outcome:
    for seed in range(seeds):
        with mutant.planted():
            outcome = again.quietly(seed)
        if outcome.violations and not again.quietly(seed).violations:
            return outcome
    raise AssertionError(f"{seeds} seeds pass with the bug {mutant.name!r} in place")


@pytest.mark.parametrize("mutant", [LOSES_STATE, LENDS_TWICE], ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_found_and_shrunk(mutant: Mutant) -> None:
    """SH-1, SH-2: the small plan fails in the same way with the bug, and passes without it."""
    outcome = first_found(mutant, 200)
    with mutant.planted():
        shrinker = Shrinker(lambda plan: bool(outcome.invariants & again.quietly(plan).invariants), runs_max=60)
        small = shrinker.shrink(outcome.plan)
        again_found = again.quietly(parse(str(small)))
    assert shrinker.runs <= 60, "SH-2"
    assert again_found.invariants & outcome.invariants, "SH-1"
    assert small.size <= 6 < outcome.plan.size or small.size <= outcome.plan.size // 2, str(small)
    passes(small)


def plan_of(operations: int, faults: int) -> Plan:
    steps = tuple(Step(float(number), "task", {"number": number}) for number in range(operations))
    strikes = tuple(Step(float(number), "kill-worker", {"pick": number}) for number in range(faults))
    nodes: tuple[Args, ...] = ({"cpus": 1}, {"cpus": 2})
    return Plan(1, {"scheme": "tcp"}, nodes, (Driver({"outside": 1}, steps), Driver({"outside": 0}, steps[:2])), strikes)


def test_shrinking_leaves_what_is_needed_and_nothing_else() -> None:
    def fails(plan: Plan) -> bool:
        numbers = {step.args["number"] for driver in plan.drivers for step in driver.steps}
        return {3, 11} <= numbers and any(fault.args["pick"] == 5 for fault in plan.faults)

    shrinker = Shrinker(fails)
    small = shrinker.shrink(plan_of(16, 8))
    assert [[step.args["number"] for step in driver.steps] for driver in small.drivers] == [[3, 11]]
    assert [fault.args["pick"] for fault in small.faults] == [5]
    assert small.args["scheme"] == "unix"
    assert len(small.nodes) == 1
    assert small.drivers[0].args["outside"] == 0


def test_sh_2_shrinking_stops_at_its_bound() -> None:
    asked: list[Plan] = []

    def passes_always(plan: Plan) -> bool:
        asked.append(plan)
        return False

    shrinker = Shrinker(passes_always, runs_max=7)
    plan = plan_of(30, 30)
    assert shrinker.shrink(plan) == plan
    assert len(asked) == 7


def test_any_line_may_be_left_out() -> None:
    plan = plan_of(2, 2)
    lines = lines_of(plan)
    assert len(lines) == plan.size == 6
    assert without(plan, lines).size == 0
    assert [without(plan, [line]).size for line in lines] == [5] * 6


# -- markers and figures


def test_markers_have_names_of_their_own_and_watch_what_is_there() -> None:
    assert len({marker.name for marker in MARKERS}) == len(MARKERS) >= 25
    assert all(marker.method in vars(marker.owner) for marker in MARKERS)


def test_wt_2_nothing_stays_of_watching() -> None:
    before = {marker: vars(marker.owner)[marker.method] for marker in MARKERS}
    seen = run(draw(1)).markers
    assert {marker: vars(marker.owner)[marker.method] for marker in MARKERS} == before
    assert seen


def test_few_seeds_reach_half_of_the_markers() -> None:
    """All of them need hundreds: `make sim` names those that were not reached."""
    figure = Figure()
    for seed in range(12):
        figure.add(run(draw(seed)))
    reached = len(MARKERS) - len(figure.missing())
    assert reached >= len(MARKERS) // 2, figure.missing()


def test_a_marker_that_nothing_reaches_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = Marker("pigs fly", CheckpointStore, "drop", lambda self, args, result: False)
    monkeypatch.setattr("tests.sim.whole.figure.MARKERS", (*MARKERS[:2], nobody))
    figure = Figure()
    outcome = Outcome(draw(1))
    outcome.markers.update({MARKERS[0].name: 3, MARKERS[1].name: 1})
    figure.add(outcome)
    assert figure.missing() == ["pigs fly"]
    assert "2 of 3 reached; missing: pigs fly" in "\n".join(figure.lines())


def test_many_runs_are_told_and_each_failure_with_its_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failed = Outcome(draw(4), [Violation("WH-1", "nothing moves")])
    monkeypatch.setattr(again, "quietly", lambda what: failed if what == 4 else Outcome(draw(1)))
    assert [(what, bool(outcome.violations)) for what, outcome in many.run_block([3, 4, "a_plan"])] == [
        (3, False),
        (4, True),
        ("a_plan", False),
    ]
    many._tell(4, failed, 1)
    assert capsys.readouterr().out == "FAILED seed 4: WH-1\n  WH-1: nothing moves\nagain: python -m tests.sim.whole --seed 4\n\n"
    assert many.command_of("a_plan") == "python -m tests.sim.whole --plan tests/sim/whole/failed_plans/a_plan.txt"


def test_what_is_wrong_has_a_name_in_the_figure() -> None:
    assert kind_of("CK-1", "call 3 never ended") == "lost"
    assert kind_of("CK-1", "call 3 ended 2 times") == "duplicated"
    assert [kind_of(name, "") for name in ("CK-2", "WH-3", "CK-6", "WH-1", "CK-7", "WH-7")] == [
        "wrong", "lost", "duplicated", "hung", "left", "other",
    ]  # fmt: skip
