"""The lineage of results: what is kept, how much of it, and what goes with what (LN-1, LN-2)."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.policy.lineage import RECIPE_BYTES, Lineage, Recipe

TARGET = SimpleNamespace(name="make")


def recipe(size: int = 0, *deps: Any) -> Recipe:
    return Recipe(TARGET, None, b"x" * size, deps=deps)


def result(lineage: Lineage, size: int = 0, *deps: Any) -> Any:
    """Stands for an entry of the ownership table: it holds its recipe."""
    entry = SimpleNamespace(recipe=recipe(size, *deps))
    lineage.keep(entry.recipe)
    return entry


def test_ln_2_a_recipe_goes_with_its_result() -> None:
    lineage = Lineage(1_000_000)
    first, second = result(lineage, 100), result(lineage, 50)
    assert lineage.bytes == 2 * RECIPE_BYTES + 150
    del first
    lineage.settle()
    assert lineage.bytes == RECIPE_BYTES + 50
    del second
    lineage.settle()
    assert lineage.bytes == 0


def test_ln_2_a_recipe_stays_while_something_that_was_made_of_its_result_is_there() -> None:
    lineage = Lineage(1_000_000)
    last = result(lineage, 0, result(lineage, 0, result(lineage)))
    assert lineage.bytes == 3 * RECIPE_BYTES
    assert not last.recipe.deps[0].recipe.deps[0].recipe.problem
    del last
    lineage.settle()
    assert lineage.bytes == 0


def test_ln_1_the_oldest_goes_when_there_is_too_much_and_says_why() -> None:
    lineage = Lineage(3 * RECIPE_BYTES + 1_000)
    results = [result(lineage, 300) for _ in range(5)]
    assert lineage.bytes <= lineage.bytes_max
    assert [bool(entry.recipe.problem) for entry in results] == [True, True, False, False, False]
    assert "bounded to 2800 bytes" in results[0].recipe.problem
    assert results[0].recipe.args == b""
    del results[0]
    lineage.settle()
    assert lineage.bytes == 3 * (RECIPE_BYTES + 300), "what was dropped is not counted twice"


def test_ln_1_what_only_the_oldest_referred_to_goes_with_it() -> None:
    lineage = Lineage(3 * RECIPE_BYTES)
    old = result(lineage, 0, result(lineage), result(lineage))
    assert lineage.bytes == 3 * RECIPE_BYTES
    new = result(lineage)
    # The two arguments are the oldest; the first of them had to go.
    assert [bool(dep.recipe.problem) for dep in old.recipe.deps] == [True, False]
    assert not new.recipe.problem
    assert lineage.bytes == 3 * RECIPE_BYTES


def test_one_that_is_too_large_by_itself_is_not_kept() -> None:
    lineage = Lineage(1_000)
    entry = result(lineage, 2_000)
    assert entry.recipe.problem
    assert lineage.bytes == 0


def test_a_chain_of_a_hundred_thousand_is_taken_down_without_recursion() -> None:
    lineage = Lineage(1 << 40)
    last = result(lineage)
    for _ in range(100_000):
        last = result(lineage, 0, last)
    del last
    lineage.settle()
    assert lineage.bytes == 0


def test_what_is_gone_is_not_remembered() -> None:
    lineage = Lineage(1 << 40)
    kept = [result(lineage)]
    for _ in range(10_000):
        result(lineage)
    assert len(lineage._order) <= 2 * lineage._live + 100 + 1
    assert kept


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5_000)), max_size=60), st.integers(0, 2**32))
def test_ln_1_whatever_comes_and_goes_the_count_is_right_and_bounded(steps: list[tuple[int, int]], seed: int) -> None:
    rng, deps = random.Random(seed), list[Any]()
    lineage, alive = Lineage(20_000), list[Any]()
    for kind, size in steps:
        if kind == 0 and alive:
            alive.pop(rng.randrange(len(alive)))
        else:
            deps = rng.sample(alive, min(kind, len(alive)))
            alive.append(result(lineage, size, *deps))
            deps = []
        lineage.settle()
        assert lineage.bytes <= lineage.bytes_max
        assert lineage.bytes == cost_of(alive)
    alive.clear()
    deps = []
    lineage.settle()
    assert lineage.bytes == 0


def cost_of(alive: list[Any]) -> int:
    """What the recipes cost that can be reached from these."""
    found: dict[int, Recipe] = {}
    todo = list(alive)
    while todo:
        known = todo.pop().recipe
        if id(known) not in found:
            found[id(known)] = known
            todo.extend(known.deps)
    return sum(known.cost for known in found.values() if not known.problem)
