"""The arithmetic of sets of nodes, against plain loops. The index as a whole is tested through the view and the scheduler."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.policy.node_index import (
    LEVELS,
    PACKED_BELOW,
    Column,
    NodeIndex,
    at_least,
    first_slot,
    least_used,
    level_of,
    nth_slot,
)
from actorflow._core.policy.node_records import NodeRecord, NodeReport

amounts = st.one_of(st.integers(0, 40), st.sampled_from([2**k for k in range(60)]), st.integers(0, 2**62))


def sliced(values: list[int]) -> list[int]:
    width = max((value.bit_length() for value in values), default=0)
    return [sum((value >> position & 1) << slot for slot, value in enumerate(values)) for position in range(width)]


def slots(mask: int) -> list[int]:
    return [slot for slot in range(mask.bit_length()) if mask >> slot & 1]


@given(st.lists(amounts, max_size=12), amounts.filter(bool), st.integers(0, 2**12 - 1))
def test_a_comparison_with_all_amounts(values: list[int], units: int, among: int) -> None:
    among &= (1 << len(values)) - 1
    expected = [slot for slot, value in enumerate(values) if value >= units and among >> slot & 1]
    assert slots(at_least(sliced(values), units, among)) == expected


@given(st.lists(st.integers(5, 9), min_size=1, max_size=12), st.integers(5, 10))
def test_a_comparison_with_amounts_that_are_close(values: list[int], units: int) -> None:
    everyone = (1 << len(values)) - 1
    assert slots(at_least(sliced(values), units, everyone)) == [slot for slot, value in enumerate(values) if value >= units]


@given(st.integers(1, 2**200))
def test_the_slots_of_a_set_by_number(mask: int) -> None:
    assert [nth_slot(mask, number) for number in range(mask.bit_count())] == slots(mask)
    assert first_slot(mask) == slots(mask)[0]


@pytest.mark.parametrize(
    ("total", "available", "level"),
    [(0, 0, 0), (10, 10, 0), (10, 0, LEVELS), (100, 51, PACKED_BELOW - 1), (100, 50, PACKED_BELOW), (10**18, 1, LEVELS - 1)],
)
def test_levels(total: int, available: int, level: int) -> None:
    assert level_of(total, available) == level


def columns(table: list[list[int]]) -> list[Column]:
    """From the levels of each node in each of the resources."""
    made = []
    for levels in zip(*table, strict=True):
        column = Column()
        for slot, level in enumerate(levels):
            column.levels[level] |= 1 << slot
            column.low |= (1 << slot) * (level < PACKED_BELOW)
        made.append(column)
    return made


@given(
    st.integers(1, 3).flatmap(
        lambda width: st.lists(st.lists(st.integers(0, LEVELS), min_size=width, max_size=width), min_size=1, max_size=10)
    ),
    st.integers(1, 12),
    st.randoms(use_true_random=False),
)
def test_the_least_used(table: list[list[int]], count: int, rng: random.Random) -> None:
    room = rng.randrange(1, 1 << len(table))
    highest = {slot: max(table[slot]) for slot in slots(room)}
    start = PACKED_BELOW if min(highest.values()) >= PACKED_BELOW else 0
    reached = sorted(highest.values())[min(count, len(highest)) - 1]
    best, found = least_used(columns(table), room, start, count)
    assert slots(best) == [slot for slot, level in highest.items() if level == min(highest.values())]
    assert slots(found) == [slot for slot, level in highest.items() if level <= reached]


def test_slots_are_used_again_the_lowest_first_and_names_are_forgotten() -> None:
    index = NodeIndex()
    nodes = {name: NodeRecord(NodeReport(name, 1, {"CPU": 5, name: 7}, {}, {"zone": name}), index.join(name)) for name in "abcd"}
    for node in nodes.values():
        index.put(node)
    for name in "ca":
        index.drop(nodes[name])
        index.leave(name)
    assert set(index.columns) == {"CPU", "b", "d"}
    assert set(index.labels) == {("zone", "b"), ("zone", "d")}
    assert [index.join("e"), index.join("f"), index.join("g")] == [0, 2, 4]
    assert index.ids == ["e", "b", "f", "d", "g"]
