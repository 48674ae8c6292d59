"""Packing of bundles: each strategy, and against brute force over every assignment."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorflow._core.policy.bundle_packing import BundleSpec, NotPacked, Packed, Place, Strategy, matching, pack
from actorflow._core.policy.bundle_search import search
from actorflow._core.policy.placement_reasons import why_not_placed

ONE = {"CPU": 10_000}


def cpus(*amounts: int) -> dict[int, BundleSpec]:
    return {index: BundleSpec({"CPU": amount}) for index, amount in enumerate(amounts)}


def nodes(*amounts: int, **has: int) -> list[Place]:
    return [Place(f"n{number}", {}, {"CPU": amount}, has.get(f"n{number}", 0)) for number, amount in enumerate(amounts)]


def packed(strategy: Strategy, wanted: dict[int, BundleSpec], places: list[Place]) -> dict[int, str]:
    found = pack(strategy, wanted, places)
    assert isinstance(found, Packed), found
    return found.nodes


# Each strategy ----------------------------------------------------------------------------------------------


def test_pack_takes_one_node_and_the_one_that_is_filled_best() -> None:
    assert packed(Strategy.PACK, cpus(1, 2), nodes(9, 2, 4, 9)) == {0: "n2", 1: "n2"}


def test_pack_takes_few_nodes_when_one_is_not_enough() -> None:
    assert packed(Strategy.PACK, cpus(2, 2, 2), nodes(2, 3, 5, 2)) == {0: "n2", 1: "n2", 2: "n0"}


def test_pack_goes_where_the_group_is_already() -> None:
    assert packed(Strategy.PACK, cpus(1), nodes(1, 5, n1=2)) == {0: "n1"}


def test_spread_takes_as_many_nodes_as_it_can_and_then_evenly() -> None:
    assert Counter(packed(Strategy.SPREAD, cpus(1, 1, 1, 1, 1), nodes(9, 9, 9)).values()) == {"n0": 2, "n1": 2, "n2": 1}
    assert packed(Strategy.SPREAD, cpus(1), nodes(9, 9, n0=1)) == {0: "n1"}


def test_strict_pack_is_one_node_or_none() -> None:
    assert packed(Strategy.STRICT_PACK, cpus(2, 2), nodes(3, 3, 4)) == {0: "n2", 1: "n2"}
    assert pack(Strategy.STRICT_PACK, cpus(2, 2), nodes(3, 3)) == NotPacked(proven=True)


def test_strict_pack_stays_where_a_part_of_it_is() -> None:
    assert packed(Strategy.STRICT_PACK, cpus(1), nodes(9, 9, n1=1)) == {0: "n1"}
    assert pack(Strategy.STRICT_PACK, cpus(1), nodes(9, 0, n1=1)) == NotPacked(proven=True)


def test_strict_spread_finds_the_only_matching() -> None:
    assert packed(Strategy.STRICT_SPREAD, cpus(1, 2, 3), nodes(3, 1, 2)) == {0: "n1", 1: "n2", 2: "n0"}
    assert pack(Strategy.STRICT_SPREAD, cpus(1, 1), nodes(9)) == NotPacked(proven=True)


def test_strict_spread_moves_others_along_a_path() -> None:
    """Each bundle suits two neighbours, so that the last comes in only when all before it move by one."""
    count = 50
    wanted = {index: BundleSpec({f"r{index}": 1}) for index in range(count)}
    places = [Place(f"n{index:02}", {}, {f"r{index}": 1, f"r{(index + 1) % count}": 1}) for index in range(count)]
    assert len(matching(wanted, places)) == count


def test_strict_spread_keeps_away_from_nodes_that_have_one_already() -> None:
    assert packed(Strategy.STRICT_SPREAD, cpus(1), nodes(9, 1, n0=1)) == {0: "n1"}
    assert pack(Strategy.STRICT_SPREAD, cpus(1), nodes(9, n0=1)) == NotPacked(proven=True)


def test_labels_count_for_each_bundle() -> None:
    places = [Place("a", {"zone": "a"}, {"CPU": 9}), Place("b", {"zone": "b", "disk": "ssd"}, {"CPU": 9})]
    wanted = {0: BundleSpec({"CPU": 1}, {"zone": "a"}), 1: BundleSpec({"CPU": 1}, {"disk": "ssd"})}
    for strategy in (Strategy.PACK, Strategy.SPREAD, Strategy.STRICT_SPREAD):
        assert packed(strategy, wanted, places) == {0: "a", 1: "b"}
    assert pack(Strategy.STRICT_PACK, wanted, places) == NotPacked(proven=True)


def test_what_needs_no_gpu_leaves_the_nodes_with_gpus_to_others() -> None:
    places = [Place("gpu", {}, {"CPU": 8, "GPU": 8}), Place("plain", {}, {"CPU": 8})]
    for strategy in Strategy:
        assert packed(strategy, cpus(1), places) == {0: "plain"}


def test_the_search_finds_what_the_greedy_way_misses() -> None:
    """Largest first puts 4 and 4 together and is stuck: it is 4, 3 and 2 on each."""
    wanted = cpus(4, 4, 3, 3, 2, 2)
    for strategy in (Strategy.PACK, Strategy.SPREAD):
        assert set(packed(strategy, wanted, nodes(9, 9)).values()) == {"n0", "n1"}
    assert pack(Strategy.PACK, wanted, nodes(9, 9), work_max=0) == NotPacked(proven=False)


def test_a_search_that_was_cut_short_proves_nothing() -> None:
    demands, allowed, rooms = [(3,)] * 8, [[True] * 4] * 8, [(5,), (5,), (5,), (9,)]
    assert search(demands, allowed, rooms, work_max=5) is False
    assert search(demands, allowed, rooms, work_max=10_000) is True


def test_a_debt_on_one_node_takes_nothing_from_another() -> None:
    assert packed(Strategy.SPREAD, cpus(3, 2), nodes(-4, 5)) == {0: "n1", 1: "n1"}


# Against brute force ----------------------------------------------------------------------------------------

AMOUNTS = st.dictionaries(st.sampled_from(["CPU", "GPU"]), st.integers(1, 4), min_size=1)
LABELS = st.dictionaries(st.sampled_from(["zone"]), st.sampled_from(["a", "b"]))
BUNDLES = st.lists(st.builds(BundleSpec, AMOUNTS, LABELS), min_size=1, max_size=5)
ROOMS = st.fixed_dictionaries({"CPU": st.integers(-1, 7), "GPU": st.integers(0, 5)})
PLACES = st.lists(st.tuples(ROOMS, LABELS, st.integers(0, 1)), max_size=4)


def allowed(strategy: Strategy, wanted: dict[int, BundleSpec], places: dict[str, Place], nodes: dict[int, str]) -> bool:
    used: dict[str, Counter[str]] = {}
    for index, node_id in nodes.items():
        used.setdefault(node_id, Counter()).update(wanted[index].resources)
        if any(places[node_id].labels.get(name) != value for name, value in wanted[index].labels.items()):
            return False
    if any(units > places[n].room.get(name, 0) for n, amounts in used.items() for name, units in amounts.items()):
        return False
    if strategy is Strategy.STRICT_PACK:
        has = {place.node_id for place in places.values() if place.has}
        return len(set(nodes.values())) == 1 and (not has or set(nodes.values()) <= has)
    if strategy is Strategy.STRICT_SPREAD:
        return len(used) == len(nodes) and all(places[node_id].has == 0 for node_id in used)
    return True


@settings(max_examples=400, deadline=None)
@given(strategy=st.sampled_from(Strategy), bundles=BUNDLES, rows=PLACES)
def test_it_finds_a_place_exactly_when_there_is_one(strategy: Strategy, bundles: list[BundleSpec], rows: list[tuple]) -> None:
    wanted = dict(enumerate(bundles))
    places = {f"n{number}": Place(f"n{number}", labels, room, has) for number, (room, labels, has) in enumerate(rows)}
    assignments = (dict(zip(wanted, chosen, strict=True)) for chosen in product(places, repeat=len(wanted)))
    possible = any(allowed(strategy, wanted, places, nodes) for nodes in assignments)
    rooms = {node_id: dict(place.room) for node_id, place in places.items()}
    found = pack(strategy, wanted, list(places.values()), work_max=100_000)
    if isinstance(found, Packed):
        assert found.nodes.keys() == wanted.keys()
        assert allowed(strategy, wanted, places, found.nodes), "BP-1"
    else:
        assert found.proven
        assert not possible, "BP-2"
        assert why_not_placed(strategy, wanted, list(places.values()), ever=True)
    assert rooms == {node_id: dict(place.room) for node_id, place in places.items()}, "the packing only reads"
    assert pack(strategy, wanted, list(places.values()), work_max=100_000) == found, "BP-3"


# Why not ----------------------------------------------------------------------------------------------------

UNITS = 10_000


@pytest.mark.parametrize(
    ("strategy", "bundles", "text"),
    [
        ("PACK", [{"GPU": 3 * UNITS}], "bundle 0 asks for 3 GPU, and the nearest node, b, has 2 GPU in all"),
        ("PACK", [{"CPU": UNITS}, {"gpu": UNITS}], "the nearest node, a, has no gpu in all. Did you mean 'GPU' instead of 'gpu'?"),
        ("STRICT_PACK", [{"CPU": 3 * UNITS}, {"GPU": UNITS}], "all 2 bundles on one node asks for 3 CPU, 1 GPU, and the nearest node"),
        ("STRICT_SPREAD", [{"CPU": UNITS}] * 3, "each bundle needs a node of its own, and 2 of 3 can ever have one"),
        ("SPREAD", [{"CPU": 2 * UNITS}] * 4, "all 4 bundles ask for 8 CPU, and the 2 nodes together have 6 CPU in all"),
        ("SPREAD", [{"CPU": 2 * UNITS}] * 2 + [{"CPU": UNITS, "GPU": UNITS}] * 2, "no way was found to place all at one time"),
    ],
)
def test_the_reason_names_what_comes_nearest(strategy: str, bundles: list[dict[str, int]], text: str) -> None:
    places = [Place("a", {}, {"CPU": 4 * UNITS}), Place("b", {}, {"CPU": 2 * UNITS, "GPU": 2 * UNITS})]
    wanted = {index: BundleSpec(resources) for index, resources in enumerate(bundles)}
    assert text in why_not_placed(Strategy(strategy), wanted, places, ever=True)


def test_the_reason_names_labels() -> None:
    places = [Place("a", {"zone": "x"}, {"CPU": UNITS}), Place("b", {"zone": "y"}, {})]
    for labels, text in (({"zone": "z"}, "'zone' is 'x', 'y' where a node has it"), ({"rack": "1"}, "no node has 'rack'")):
        assert text in why_not_placed(Strategy.PACK, {0: BundleSpec(ONE, labels)}, places, ever=True)
    both = {0: BundleSpec(ONE, {"zone": "x"}), 1: BundleSpec(ONE, {"zone": "y"})}
    assert "contradict" in why_not_placed(Strategy.STRICT_PACK, both, [*places, Place("c", {"zone": "y"}, ONE)], ever=True)
    assert "no node at the moment" in why_not_placed(Strategy.PACK, both, [], ever=True)
