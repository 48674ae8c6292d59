"""A node that is cut off from the others, on hosts of its own, and whether the judge of that sees what is wrong.

For 30 s, in several ways and many times: `make partition-test`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actorflow._core.policy.liveness import LEASE_S, LOOK_S, SILENCE_S
from actorflow.testing.lan import problem
from tests.soak.partition import Round, partition, plan
from tests.soak.partition_judge import Cut, judge
from tests.soak.register import Write

needs_hosts = pytest.mark.skipif(bool(problem()), reason=problem() or "there can be hosts")
CUT_S = SILENCE_S + 2.0
BUSY_S = 3.0
"""How much longer things may take where the machine has other work."""


@needs_hosts
@pytest.mark.timeout(180)
def test_a_node_that_is_cut_off_in_the_middle_of_work(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call ends as it may, no two lives of an actor act at one time, and the node comes back as a new one."""
    monkeypatch.setattr("tests.soak.partition.WARM_S", 1.5)
    monkeypatch.setattr("tests.soak.partition.AFTER_S", 1.0)
    with partition(short_path, seconds=CUT_S) as running:
        verdict = running.round(Round("head", "both"))
    assert verdict.problems() == []
    assert verdict.lives == 4 + 2, "four actors, two of which begin again"
    assert verdict.errors["ActorUnavailableError"] > 0, "calls were under way when it was cut off"
    assert sum(verdict.results.values()) > 300
    assert len(verdict.answered_s) == 2
    assert min(verdict.acted_s) > LEASE_S, "not before its lease was over (LV-1)"
    assert max(verdict.answered_s) < SILENCE_S + LOOK_S + BUSY_S
    # The last act was before the end of the lease, the first of the next life after the silence; both are counted from beats.
    assert min(verdict.gaps_s) > (SILENCE_S - LEASE_S) / 2


@needs_hosts
@pytest.mark.timeout(180)
def test_a_node_that_is_cut_off_from_the_head_alone_goes_on(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other node passes on its beats (LV-4): nobody is given up, and every call ends in its value, soon."""
    monkeypatch.setattr("tests.soak.partition.WARM_S", 1.5)
    with partition(short_path, seconds=CUT_S) as running:
        verdict = running.round(Round("other", "head"))
    assert verdict.problems() == []
    assert verdict.lives == 4
    assert not verdict.errors
    assert sum(verdict.results.values()) > 300
    assert max(verdict.longest_s) < 2 * BUSY_S


def told(**fields: Any) -> dict[str, Any]:
    """A call as the driver tells of it: good, unless `fields` say otherwise."""
    return {"call": "r1-cut-once-0", "kind": "cut-once", "number": 0, "began": 9.0, "ended": 9.1, "value": 0, "life": 1} | fields


def ran(call: str = "r1-cut-once-0", *, at: float = 9.05, life: int = 1, seq: int = 1) -> Write:
    return Write(at, "call", "r1-cut-once", life, seq, call)


DONE = {"done": True}
CUT = Cut(10.0, 40.0, driver_cut=False)
SEEN = [
    {"at": 8.0, "nodes": [["a", False, "alive"], ["b", True, "alive"]]},
    {"at": 19.0, "nodes": [["a", False, "alive"], ["b", True, "dead"]]},
    {"at": 41.0, "nodes": [["a", False, "alive"], ["b", True, "dead"], ["c", True, "alive"]]},
]
UNAVAILABLE = {"error": "ActorUnavailableError", "typed": True, "text": "it was restarted", "ended": 19.5}


def failed(**fields: Any) -> dict[str, Any]:
    line = told(**{**UNAVAILABLE, **fields})
    del line["value"], line["life"]
    return line


def test_a_good_round_is_judged_good() -> None:
    writes = [
        Write(8.0, "born", "r1-cut-once", 1, 0, ""),
        ran(),
        Write(12.0, "act", "r1-cut-once", 1, 2, ""),
        Write(19.0, "born", "r1-cut-once", 2, 0, ""),
        ran("r1-cut-once-2", at=19.2, life=2),
    ]
    lines = [told(), failed(call="r1-cut-once-1", number=1), told(call="r1-cut-once-2", number=2, value=14, life=2, ended=19.3), DONE]
    verdict = judge(lines, SEEN, writes, CUT)
    assert verdict.problems() == []
    assert (verdict.lives, verdict.acts) == (2, 5)
    assert [round(value, 1) for found in (verdict.gaps_s, verdict.acted_s, verdict.answered_s, verdict.back_s) for value in found] == [
        7.0, 9.0, 9.3, 1.0,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "writes", "says"),
    [
        ([told(value=1)], [ran()], "wrong: r1-cut-once-0 gave 1"),
        ([told()], [], "wrong: r1-cut-once-0 has a result, and never ran"),
        ([told()], [ran(), ran(seq=2)], "ran twice: r1-cut-once-0 ran 2 times"),
        ([failed()], [ran(), ran(seq=2)], "ran twice: r1-cut-once-0 ran 2 times"),
        ([failed(typed=False, error="KeyError")], [], "wrong: r1-cut-once-0 ended in KeyError"),
        ([failed(error="InternalError")], [], "wrong: r1-cut-once-0 ended in InternalError"),
        ([failed(ended=9.1)], [], "before anything was cut"),
        ([failed(kind="cut-again")], [], "a call with retries failed: r1-cut-once-0 ended in ActorUnavailableError"),
        ([{"hung": "r1-task-once-3", "kind": "task-once"}], [], "hung: r1-task-once-3"),
        ([{"lost": 20.0}], [], "a driver that was not cut off has lost its cluster"),
        (
            [told(), told(call="r1-cut-once-1", number=1, value=7)],
            [ran("r1-cut-once-1"), ran()],
            "out of order: r1-cut-once-0 started after call 1",
        ),
        (
            [],
            [Write(19.0, "born", "x", 2, 0, ""), Write(19.1, "act", "x", 1, 9, "")],
            "acted twice: x: life 1 acted at 19.100, 2 had acted at 19.000",
        ),
    ],
)
def test_what_is_wrong_is_seen(lines: list[dict[str, Any]], writes: list[Write], says: str) -> None:
    [problem] = judge([*lines, DONE], SEEN, writes, CUT).problems()
    assert says in problem


def test_a_driver_or_a_node_that_does_not_come_back_is_seen() -> None:
    assert judge([], SEEN, [], CUT).problems() == ["hung: the driver did not come to its end"]
    assert judge([DONE], SEEN[:2], [], CUT).problems() == ["hung: the node that was cut off did not come back as a new one"]
    still = [*SEEN[:2], {"at": 41.0, "nodes": [["b", True, "alive"], ["c", True, "alive"]]}]
    assert judge([DONE], still, [], CUT).problems() == ["wrong: the node that was cut off is there under its old name"]
    away = CUT._replace(driver_cut=True)
    assert len(judge([DONE], SEEN, [], away).problems()) == 1, "it was not told"
    [hung] = judge([{"lost": 18.0}, DONE], SEEN, [], away).problems()
    assert hung == "hung: the driver on the host that was cut off could not join again"
    gone = failed(error="ClusterConnectionError", kind="cut-again")
    assert judge([gone, {"lost": 18.0}, {"back": 41.0}, DONE], SEEN, [], away).problems() == []


def test_rounds_take_drivers_and_ways_in_turn() -> None:
    assert plan(3, one_way=False) == [Round("head", "both"), Round("other", "both"), Round("cut", "both")]
    assert plan(2, from_head=True) == [Round("other", "head")] * 2
    assert set(plan(6, one_way=True)) == {Round(driver, way) for driver in ("head", "other", "cut") for way in ("out", "in")}
