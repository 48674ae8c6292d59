"""Each checker is silent on a good history and speaks on a bad one."""

import pytest

from actorflow.testing import (
    Call,
    History,
    InvariantBroken,
    at_most_once,
    at_most_once_where,
    check,
    errors_allowed,
    errors_allowed_by,
    one_live_incarnation,
    one_terminal_result,
    per_caller_order,
    values_match,
)


@pytest.fixture
def history() -> History:
    return History()


def invoke(history: History, number: int = 1, caller: str = "driver") -> Call:
    return history.invoked(caller, "counter", "add", number)


def test_a_good_history_has_no_violations(history: History) -> None:
    history.life_began("counter", "first")
    for number in range(3):
        call = invoke(history, number)
        history.executed(call.number, "counter", "first")
        history.ended(call, number + 1)
    history.life_ended("counter", "first")
    history.life_began("counter", "second")
    check(history)
    check(history, [at_most_once, values_match(lambda call: call.args[0] + 1), errors_allowed()])


# -- CK-1


def test_ck_1_a_call_without_an_end(history: History) -> None:
    invoke(history)
    assert [str(violation) for violation in one_terminal_result(history)] == [
        "CK-1: call 0 by driver: counter.add(1) never ended"
    ]


def test_ck_1_a_call_with_two_ends(history: History) -> None:
    call = invoke(history)
    history.ended(call, 1)
    history.failed(call, OSError())
    assert "ended 2 times" in str(one_terminal_result(history)[0])


def test_ck_1_a_killed_caller_needs_no_end_but_may_not_have_two(history: History) -> None:
    call = invoke(history)
    history.caller_died("driver")
    assert one_terminal_result(history) == []
    history.ended(call)
    history.ended(call)
    assert len(one_terminal_result(history)) == 1


# -- CK-2, CK-3


def test_ck_2_a_wrong_value(history: History) -> None:
    history.ended(invoke(history, 1), 3)
    history.failed(invoke(history, 1), OSError())
    found = values_match(lambda call: call.args[0] + 1)(history)
    assert [str(violation) for violation in found] == [
        "CK-2: call 0 by driver: counter.add(1) returned 3, not 2"
    ]


def test_ck_3_an_error_of_a_type_that_is_not_allowed(history: History) -> None:
    history.failed(invoke(history), ConnectionError())
    history.failed(invoke(history), KeyError("x"))
    assert errors_allowed(OSError, LookupError)(history) == []
    assert [violation.invariant for violation in errors_allowed(OSError)(history)] == ["CK-3"]


# -- CK-4


def test_ck_4_two_incarnations_at_once(history: History) -> None:
    history.life_began("counter", "first")
    history.life_began("counter", "second")
    history.life_ended("counter", "first")
    assert "first still lives when second begins" in str(one_live_incarnation(history)[0])


def test_ck_4_incarnations_of_different_actors_may_overlap(history: History) -> None:
    history.life_began("counter", "first")
    history.life_began("other", "second")
    assert one_live_incarnation(history) == []


def test_ck_4_a_call_that_runs_in_the_dead(history: History) -> None:
    history.life_began("counter", "first")
    history.life_ended("counter", "first")
    history.executed(invoke(history).number, "counter", "first")
    assert "which was dead" in str(one_live_incarnation(history)[0])


# -- CK-5, CK-6


def test_ck_5_calls_of_one_caller_that_start_out_of_order(history: History) -> None:
    first, second = invoke(history), invoke(history)
    history.executed(second.number, "counter")
    history.executed(first.number, "counter")
    assert [violation.invariant for violation in per_caller_order(history)] == ["CK-5"]


def test_ck_5_two_callers_have_no_order_and_a_retry_does_not_count(history: History) -> None:
    first, second = invoke(history, caller="one"), invoke(history, caller="other")
    third = invoke(history, caller="one")
    for call in (second, first, third, first):
        history.executed(call.number, "counter")
    assert per_caller_order(history) == []


def test_ck_5_a_call_that_never_started_is_skipped(history: History) -> None:
    calls = [invoke(history) for _ in range(3)]
    history.executed(calls[0].number, "counter")
    history.executed(calls[2].number, "counter")
    assert per_caller_order(history) == []


def test_ck_6_a_call_that_starts_twice(history: History) -> None:
    call = invoke(history)
    history.executed(call.number, "counter")
    history.executed(call.number, "counter")
    assert "started 2 times" in str(at_most_once(history)[0])


# -- all together


def test_all_violations_are_listed_with_the_seed(history: History) -> None:
    for _ in range(2):
        invoke(history)
    with pytest.raises(InvariantBroken) as caught:
        check(history, seed=17)
    assert str(caught.value).splitlines()[0] == "2 violations with seed 17:"
    assert isinstance(caught.value, AssertionError)
    assert len(str(caught.value).splitlines()) == 3


def test_the_history_knows_when() -> None:
    times = iter([1.0, 2.5])
    history = History(lambda: next(times))
    call = invoke(history)
    history.ended(call, 1)
    assert (call.at, call.ends[0].at) == (1.0, 2.5)
    assert call.order < call.ends[0].order


def test_ck_3_errors_by_the_call(history: History) -> None:
    first, second = invoke(history, 1), invoke(history, 2)
    history.failed(first, OSError("expected of this one"))
    history.failed(second, OSError("and not of that one"))
    rule = errors_allowed_by(lambda call: (OSError,) if call.args[0] == 1 else ())
    assert [violation.text for violation in rule(history)] == [f"{second} raised {second.ends[0].error!r}"]


def test_ck_6_at_most_once_where_it_applies(history: History) -> None:
    for number in (1, 2):
        call = invoke(history, number)
        history.executed(call.number, "counter", "first")
        history.executed(call.number, "counter", "second")
    assert len(at_most_once(history)) == 2
    [found] = at_most_once_where(lambda call: call.args[0] == 2)(history)
    assert found.text == "call 1 by driver: counter.add(2) started 2 times"
