"""The judge of chaos, on stories in which something is wrong, and on others in which the same would be right."""

from __future__ import annotations

import json

import pytest

from actorflow.testing.chaos import report, units
from actorflow.testing.chaos.judge import Verdict, judge
from actorflow.testing.chaos.records import Account, Book, Call, Harm, Note, Story, read_lines, read_notes, read_told
from actorflow.testing.chaos.recovery import percentile, recoveries
from actorflow.testing.chaos.schedule import Kind
from actorflow.testing.chaos.work import CRASHED, UNAVAILABLE, WORK

KILL = Harm(1, Kind.KILL_WORKER, 10.0, 10.0, (1,), "node 2")
PLACE = "actor once 1.1"


def call(name: str, began: float, ended: float, *, kind: str = "actor once", target: str = PLACE, pid: int = 1, error: str = "") -> Call:
    return Call(name, kind, target, began, ended, 0 if error else pid, error, f"{error} error" if error else "")


def ran(name: str, at: float, pid: int = 1, target: str = PLACE) -> Note:
    return Note(at, "run", target, pid, name)


def born(at: float, pid: int, target: str = PLACE) -> Note:
    return Note(at, "born", target, pid)


def story(
    calls: list[Call] | None = None, notes: list[Note] | None = None, harms: list[Harm] | None = None, accounts: list[Account] | None = None
) -> Story:
    return Story(calls or [], notes or [], harms or [], accounts or [], [], [], [], 0.0, 60.0)


def problems(told: Story) -> list[str]:
    return judge(told, {}).problems()


def test_a_run_in_which_all_went_well() -> None:
    calls = [call("a", 1, 2), call("b", 9, 11, error=UNAVAILABLE), call("c", 12, 13, pid=2)]
    notes = [born(0.5, 1), ran("a", 1.5), ran("b", 9.5), born(11, 2), ran("c", 12.5, 2)]
    verdict = judge(story(calls, notes, [KILL]), {})
    assert verdict.problems() == []
    assert verdict.errors == {("actor once", UNAVAILABLE): 1}
    assert [(each.what, each.seconds) for each in verdict.recoveries] == [(PLACE, 3.0)]


# CJ-1 -------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["task again", "actor again", "named", "stream", "objects", "chain", "group"])
def test_a_call_that_is_tried_again_ends_in_nothing_but_its_value(kind: str) -> None:
    told = story([call("a", 9, 11, kind=kind, error=CRASHED)], harms=[KILL])
    assert problems(told) == [f"wrong: a of {PLACE} ended in {CRASHED} error"]


def test_an_error_of_a_sort_that_the_kind_does_not_have() -> None:
    assert problems(story([call("a", 9, 11, error=CRASHED)], harms=[KILL])) == [f"wrong: a of {PLACE} ended in {CRASHED} error"]
    assert judge(story([call("a", 9, 11, error=CRASHED)], harms=[KILL]), {"actor once": frozenset({CRASHED})}).problems() == []


@pytest.mark.parametrize(
    ("harm", "excused"),
    [
        (KILL, True),
        (KILL._replace(at=12.0, until=12.0), False),
        (KILL._replace(at=-50.0, until=-50.0), False),
        (KILL._replace(kind=Kind.RESET), False),
        (KILL._replace(kind=Kind.STOP_WORKER, until=30.0), False),
        (KILL._replace(kind=Kind.STOP_NODE, until=13.0), False),
        (KILL._replace(kind=Kind.STOP_NODE, until=22.0), True),
        (KILL._replace(kind=Kind.PARTITION, until=12.5), False),
        (KILL._replace(kind=Kind.PARTITION, until=22.0), True),
    ],
)
def test_an_error_needs_a_reason(harm: Harm, excused: bool) -> None:
    found = problems(story([call("a", 9, 11, error=UNAVAILABLE)], harms=[harm]))
    assert found == ([] if excused else [f"wrong: a of {PLACE} ended in {UNAVAILABLE} error (and nothing had been harmed)"])


def test_a_value_of_a_call_that_never_ran() -> None:
    assert problems(story([call("a", 1, 2)], [born(0.5, 1)])) == ["wrong: a has a value, and never ran"]


# CJ-2 to CJ-4 -----------------------------------------------------------------------------------------------------------------------------


def test_a_call_without_retries_that_ran_twice() -> None:
    told = story([call("a", 9, 11, error=UNAVAILABLE)], [born(0, 1), ran("a", 9.5), born(10.5, 2), ran("a", 10.7, 2)], [KILL])
    assert problems(told) == [f"duplicated: a of {PLACE} began to run 2 times"]


def test_a_call_with_retries_may_run_twice() -> None:
    calls = [call("a", 9, 11, kind="actor again", target="actor again 1.1", pid=2)]
    notes = [ran("a", 9.5, target="actor again 1.1"), ran("a", 10.7, 2, "actor again 1.1")]
    assert problems(story(calls, notes, [KILL])) == []


def test_an_effect_that_was_acknowledged_and_is_gone() -> None:
    assert problems(story(accounts=[Account("kept 1.1", (0, 1, 2), (0, 2))])) == ["lost: kept 1.1 had acknowledged [1], and has [0, 2]"]


def test_an_effect_that_nobody_acknowledged_may_be_there() -> None:
    assert problems(story(accounts=[Account("kept 1.1", (0, 2), (0, 1, 2))])) == []


def test_an_effect_that_is_there_twice_or_in_the_wrong_place() -> None:
    assert problems(story(accounts=[Account("kept 1.1", (0, 1), (0, 1, 1))])) == ["duplicated: kept 1.1 has [1] more than once: [0, 1, 1]"]
    assert problems(story(accounts=[Account("kept 1.1", (0, 1), (1, 0))])) == ["wrong: kept 1.1 has its effects out of order: [1, 0]"]


@pytest.mark.parametrize(
    ("at", "harm", "allowed"),
    [
        (21.0, KILL, False),
        (22.5, Harm(1, Kind.STOP_NODE, 10.0, 22.0, (1,), "node 2"), True),
        (22.5, Harm(1, Kind.STOP_NODE, 10.0, 22.0, (3,), "node 2"), False),
        (23.5, Harm(1, Kind.STOP_NODE, 10.0, 22.0, (1,), "node 2"), False),
    ],
)
def test_an_earlier_life_acts_after_a_later_one_has_begun(at: float, harm: Harm, allowed: bool) -> None:
    calls = [call("a", 9, 11, error=UNAVAILABLE), call("b", 20.5, 20.7, pid=2)]
    notes = [born(0, 1), born(20, 2), ran("b", 20.6, 2), ran("a", at)]
    found = problems(story(calls, notes, [KILL, harm]))
    assert found == ([] if allowed else [f"duplicated: {PLACE}: a ran in process 1 after a later life had begun"])


# CJ-5, CJ-6 and the times -----------------------------------------------------------------------------------------------------------------


def test_an_actor_that_does_not_come_back() -> None:
    calls = [call("a", 1, 2), call("b", 11, 12, error=UNAVAILABLE)]
    assert problems(story(calls, [born(0, 1), ran("a", 1.5)], [KILL])) == [f"hung: {PLACE} did not go on after fault 1 (kill worker)"]


def test_what_is_told_as_wrong_hung_or_left_counts() -> None:
    told = story()._replace(wrong=["w"], hung=["h"], left=["l"])
    assert problems(told) == ["wrong: w", "hung: h", "left: l"]


def test_only_what_ran_in_a_process_that_was_hit_is_hit() -> None:  # GO-1
    calls = [call("a", 1, 2, pid=5), call("b", 11, 12, pid=5)]
    assert recoveries(calls, [], [KILL]) == []
    assert [each.seconds for each in recoveries([call("a", 1, 2), call("b", 9, 10.5), call("c", 11, 12, pid=5)], [], [KILL])] == [2.0]
    assert recoveries([call("a", 1, 2)], [], [KILL]) == [], "nobody called it again"


def test_a_task_is_hit_where_it_ran_last() -> None:  # GO-2
    def task(name: str, began: float, ended: float, pid: int) -> Call:
        return call(name, began, ended, kind="task again", target="task", pid=pid)

    calls = [task("a", 9, 12, 2), task("b", 9, 9.9, 1), task("c", 9, 12, 3)]
    notes = [
        ran("a", 9.5, 1, "task"),
        ran("b", 9.5, 1, "task"),
        ran("c", 9.2, 1, "task"),
        ran("c", 9.4, 3, "task"),
        ran("a", 11, 2, "task"),
    ]
    assert [(each.what, each.seconds) for each in recoveries(calls, notes, [KILL])] == [("a", 2.0)]


@pytest.mark.parametrize(
    ("other", "mixed"),
    [
        (Harm(2, Kind.KILL_NODE, 11.0, 11.0, (1, 2), "node 2"), True),
        (Harm(2, Kind.KILL_NODE, 11.0, 11.0, (3,), "node 3"), False),
        (Harm(2, Kind.KILL_NODE, 14.0, 14.0, (1, 2), "node 2"), False),
        (Harm(2, Kind.KILL_WORKER, 11.0, 11.0, (2,), "node 2"), False),
        (Harm(2, Kind.RESET, 9.0, 9.0, (1,), "node 2"), False),
        (Harm(2, Kind.PARTITION, 8.0, 10.5, (7,), "node 2"), True),
        (Harm(2, Kind.PARTITION, 8.0, 9.5, (1,), "node 2"), False),
        (Harm(2, Kind.STOP_WORKER, 8.0, 10.5, (7,), "node 2"), False),
    ],
)
def test_what_another_fault_hits_as_well_is_told_apart(other: Harm, mixed: bool) -> None:  # GO-4
    calls = [call("a", 1, 2), call("b", 12, 13, pid=5)]
    first = next(each for each in recoveries(calls, [], [KILL, other]) if each.harm is KILL)
    assert (first.seconds, first.mixed) == (3.0, mixed)


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([3.0], 0.99)) == (50.0, 99.0, 3.0)


# What is shown, and what is written down --------------------------------------------------------------------------------------------------


def shown(verdict: Verdict) -> tuple[str, dict[str, object]]:
    about = {"system": "actorflow", "seed": 7, "command": "python -m x --seed 7"}
    return report.text(verdict, **about), json.loads(json.dumps(report.figures(verdict, **about)))  # type: ignore[arg-type]


def test_the_report_has_the_figures_and_the_command() -> None:
    calls = [call("a", 1, 2), call("b", 9, 11, error=UNAVAILABLE), call("c", 12, 13, pid=2)]
    notes = [born(0.5, 1), ran("a", 1.5), ran("b", 9.5), born(11, 2), ran("c", 12.5, 2)]
    text, figures = shown(judge(story(calls, notes, [KILL]), {}))
    assert "kill worker: actors" in text
    assert "3.00 s" in text
    assert text.endswith("again: python -m x --seed 7")
    assert figures["ok"] is True
    assert figures["recovery"] == {
        "kill worker: actors": {"times": 1, "p50_s": 3.0, "p99_s": 3.0, "max_s": 3.0},
        "all kills": {"times": 1, "p50_s": 3.0, "p99_s": 3.0, "max_s": 3.0},
    }


def test_the_report_has_what_is_wrong_and_not_too_much_of_it() -> None:
    text, figures = shown(judge(story()._replace(hung=[f"call {number}" for number in range(30)]), {}))
    assert "hung: call 19" in text
    assert "hung: call 20" not in text
    assert "and 10 more" in text
    assert figures["ok"] is False
    assert len(figures["hung"]) == 30  # type: ignore[arg-type]


def test_what_was_written_is_read_again(tmp_path) -> None:  # type: ignore[no-untyped-def]
    book = Book(tmp_path / "told")
    first = call("a", 1, 2)
    book.write(**first._asdict())
    book.write(target="kept 1.1", acknowledged=[1], seen=[1, 2])
    book.write(wrong="w")
    book.write(hung="h")
    book.write(done=True)
    book.close()
    assert read_told(read_lines(tmp_path / "told")) == ([first], [Account("kept 1.1", (1,), (1, 2))], ["w"], ["h"])
    assert read_lines(tmp_path / "nothing") == []
    ledger = tmp_path / "ledger"
    ledger.touch()
    pid = units.note(str(ledger), "run", "task", "a")
    assert [(note.what, note.target, note.call, note.pid) for note in read_notes(read_lines(ledger))] == [("run", "task", "a", pid)]


def test_every_kind_of_work_is_told_what_it_is() -> None:
    from actorflow.testing.chaos.work import ABOUT

    assert list(ABOUT) == list(WORK)


def test_no_two_patterns_are_alike() -> None:
    assert len({units.pattern(number, 300) for number in range(units.MODULUS)}) == units.MODULUS
    assert len(units.pattern(3, 1000)) == 1000
    wrong = bytearray(units.pattern(5, 1000))
    wrong[700] ^= 1
    assert next(place for place in range(1000) if wrong[place] != units.pattern(5, 1000)[place]) == 700
