"""Label selectors: their four forms, what they say of labels, and what bad ones are told."""

from __future__ import annotations

import pytest

from actorflow._core.base.errors import OptionError, OptionTypeError
from actorflow._core.policy.label_selectors import (
    LABEL_CHARS_MAX,
    NODE_ID_LABEL,
    Condition,
    Selector,
    check_labels,
    parse_selector,
    parse_selectors,
)

OPTION = "label_selector"


@pytest.mark.parametrize(
    ("text", "values", "negated"),
    [
        ("a", ("a",), False),
        ("!a", ("a",), True),
        ("in(a)", ("a",), False),
        ("in(a,b)", ("a", "b"), False),
        ("in( a , b )", ("a", "b"), False),
        ("in(a,b,a)", ("a", "b"), False),
        ("!in(a,b)", ("a", "b"), True),
        ("in", ("in",), False),
        ("A100-80GB_v2.1", ("A100-80GB_v2.1",), False),
        ("x" * LABEL_CHARS_MAX, ("x" * LABEL_CHARS_MAX,), False),
    ],
)
def test_the_four_forms(text: str, values: tuple[str, ...], negated: bool) -> None:
    assert parse_selector(OPTION, {"zone": text}) == Selector((Condition("zone", values, negated),))


@pytest.mark.parametrize(
    ("text", "labels", "holds"),
    [
        ("a", {"zone": "a"}, True),
        ("a", {"zone": "b"}, False),
        ("a", {}, False),
        ("!a", {"zone": "a"}, False),
        ("!a", {"zone": "b"}, True),
        ("!a", {}, True),
        ("in(a,b)", {"zone": "b"}, True),
        ("in(a,b)", {"zone": "c"}, False),
        ("in(a,b)", {}, False),
        ("!in(a,b)", {"zone": "b"}, False),
        ("!in(a,b)", {"zone": "c"}, True),
        ("!in(a,b)", {}, True),
    ],
)
def test_what_they_say_of_labels(text: str, labels: dict[str, str], holds: bool) -> None:
    assert parse_selector(OPTION, {"zone": text}).holds(labels) is holds


def test_all_conditions_must_hold() -> None:
    selector = parse_selector(OPTION, {"zone": "in(a,b)", "example.com/disk": "!slow"})
    assert selector.holds({"zone": "a"})
    assert not selector.holds({"zone": "a", "example.com/disk": "slow"})
    assert not selector.holds({"zone": "c"})
    assert str(selector) == "zone=in(a,b), example.com/disk=!slow"
    assert Selector().holds({})


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        ("zone", OptionTypeError, ["label_selector='zone' is of the type str", "{'zone': 'a'}"]),
        ({1: "a"}, OptionTypeError, ["The name of a label is text, not 1"]),
        ({"zone": 1}, OptionTypeError, ["label_selector['zone']=1 is of the type int", "{'zone': 'a'}"]),
        ({"zone": ["a"]}, OptionTypeError, ["is of the type list"]),
        ({"": "a"}, OptionError, ["has a label of the name ''", "letters, digits"]),
        ({"-zone": "a"}, OptionError, ["'-zone', which cannot be one"]),
        ({"a/b/c": "a"}, OptionError, ["'a/b/c', which cannot be one", "example.com/zone"]),
        ({"z" * 64: "a"}, OptionError, ["which cannot be one"]),
        ({"zone": ""}, OptionError, ["label_selector['zone']='' has an empty value", "'!in(a,b)'"]),
        ({"zone": "!"}, OptionError, ["='!' has an empty value"]),
        ({"zone": "in()"}, OptionError, ["='in()' lists no value", "'in(a,b)'"]),
        ({"zone": "in(a,)"}, OptionError, ["has an empty value"]),
        ({"zone": "in(a,b"}, OptionError, ["='in(a,b' has no closing bracket", "Write 'in(a,b)'"]),
        ({"zone": "!in(a,b) "}, OptionError, ["has no closing bracket at its end"]),
        ({"zone": "!!a"}, OptionError, ["is not a value of a label in '!a'", "letter or digit at both ends"]),
        ({"zone": "a,b"}, OptionError, ["='a,b' is not a value of a label", "write 'in(a,b)'"]),
        ({"zone": "not in (a)"}, OptionError, ["is not a value of a label", "Write 'a', '!a', 'in(a,b)' or '!in(a,b)'"]),
        ({"zone": "in(a b)"}, OptionError, ["is not a value of a label in 'a b'"]),
        ({"zone": "x" * 64}, OptionError, ["is not a value of a label", "1 to 63"]),
        ({"zone": "a\n"}, OptionError, ["is not a value of a label"]),
    ],
)
def test_a_bad_selector_is_told_what_would_be_right(value: object, kind: type[OptionError], said: list[str]) -> None:
    with pytest.raises(kind) as caught:
        parse_selector(OPTION, value)
    assert [part for part in said if part not in str(caught.value)] == [], str(caught.value)
    assert caught.value.option == OPTION


def test_fallbacks_come_after_in_their_order_and_once() -> None:
    selectors = parse_selectors(OPTION, {"zone": "a"}, "fallbacks", [{"zone": "b"}, {"zone": "a"}, {}])
    assert [str(selector) for selector in selectors] == ["zone=a", "zone=b", ""]
    with pytest.raises(OptionError, match=r"fallbacks\[1\]\['zone'\]='in\(' has no closing bracket"):
        parse_selectors(OPTION, {}, "fallbacks", [{"zone": "a"}, {"zone": "in("}])
    with pytest.raises(OptionTypeError, match="A list of selectors is right"):
        parse_selectors(OPTION, {}, "fallbacks", {"zone": "a"})


def test_the_labels_of_a_node_follow_the_same_rules_and_leave_the_clusters_own_alone() -> None:
    assert check_labels("labels", {"zone": "a", "example.com/disk": "nvme0.n1"}) == {"zone": "a", "example.com/disk": "nvme0.n1"}
    for value in ("in(a)", "!a", "", "a b"):
        with pytest.raises(OptionError, match=r"labels\['zone'\]="):
            check_labels("labels", {"zone": value})
    with pytest.raises(OptionError, match="set by the cluster itself"):
        check_labels("labels", {NODE_ID_LABEL: "a"})
    assert parse_selector(OPTION, {NODE_ID_LABEL: "a"}).holds({NODE_ID_LABEL: "a"}), "selectors may ask for them"
