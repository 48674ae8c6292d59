"""Which node gets which bundle of a placement group. Pure: nodes and bundles in, an assignment out.

| strategy      | must hold                        | is aimed at                                        |
|---------------|----------------------------------|----------------------------------------------------|
| PACK          | each bundle fits                 | few nodes, those that have bundles of it first     |
| SPREAD        | each bundle fits                 | as many nodes as possible, evenly                  |
| STRICT_PACK   | all bundles on one node          | the node that they fill best                       |
| STRICT_SPREAD | no two bundles on one node       |                                                    |

BP-1: an assignment never puts more on a node than its room, and a bundle only where its labels are.
BP-2: NotPacked with `proven` is the truth about the amounts: STRICT_PACK tries every node, STRICT_SPREAD finds a
      matching when there is one, the others search everything when the greedy way fails, up to `work_max`.
BP-3: the same input gives the same assignment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

from actorflow._core.base.ids import ProcessId
from actorflow._core.base.resources import CPU, MEMORY
from actorflow._core.policy.bundle_search import search
from actorflow._core.policy.label_selectors import Selector, parse_selector

FITTING_MAX = 64
"""Of the nodes that would do, how many are compared: enough to choose well, few enough for a big cluster."""
AND = " & "
"""Between the conditions of one label when bundles are taken together; it can stand in none of them."""
WORK_MAX = 4_000
"""How many pairs of bundle and node the complete search looks at."""


class Strategy(Enum):
    """How the bundles of a group lie to one another."""

    PACK = "PACK"
    SPREAD = "SPREAD"
    STRICT_PACK = "STRICT_PACK"
    STRICT_SPREAD = "STRICT_SPREAD"


@dataclass(frozen=True, slots=True)
class BundleSpec:
    """What one bundle needs: amounts in units, and labels that its node must have."""

    resources: Mapping[str, int]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Place:
    """A node as the packing sees it: `room` is what may be used of it, and is only read."""

    node_id: ProcessId
    labels: Mapping[str, str]
    room: Mapping[str, int]
    has: int = 0
    """How many bundles of the group are there already, and stay."""


@dataclass(slots=True)
class Packed:
    """The node of each bundle, by index."""

    nodes: dict[int, ProcessId]


@dataclass(slots=True)
class NotPacked:
    """No assignment was found. `proven`: there is none."""

    proven: bool


Wanted = Mapping[int, BundleSpec]
"""The bundles to place, by index."""


def pack(strategy: Strategy, wanted: Wanted, places: Sequence[Place], work_max: int = WORK_MAX) -> Packed | NotPacked:
    """Choose a node for each wanted bundle."""
    if strategy is Strategy.STRICT_PACK:
        return _strict_pack(wanted, places)
    if strategy is Strategy.STRICT_SPREAD:
        return _strict_spread(wanted, places)
    spread = strategy is Strategy.SPREAD
    nodes = _spread(wanted, places) if spread else _pack(wanted, places)
    if nodes is not None:
        return Packed(nodes)
    if any(not any(suits(place, bundle) for place in places) for bundle in wanted.values()):
        return NotPacked(proven=True)
    return _search(wanted, places, work_max, spread=spread)


def suits(place: Place, bundle: BundleSpec) -> bool:
    """True when the bundle could be there, alone."""
    return _fits(place.room, bundle.resources) and labels_match(place.labels, bundle.labels)


def labels_match(labels: Mapping[str, str], asked: Mapping[str, str]) -> bool:
    """True when a node with `labels` is right in all that is asked: a value, or a condition as in policy/label_selectors.py."""
    return all(labels.get(name) == text or (not text.isalnum() and _holds(labels, name, text)) for name, text in asked.items())


def _holds(labels: Mapping[str, str], name: str, text: str) -> bool:
    """The same for values with marks in them, most often a condition; several are joined by AND."""
    return all(_selector(name, part).holds(labels) for part in text.split(AND))


@lru_cache(maxsize=1024)
def _selector(name: str, text: str) -> Selector:
    return parse_selector(name, {name: text})


def together(bundles: Iterable[BundleSpec]) -> BundleSpec | None:
    """All bundles as one, for one node; None when their labels contradict each other."""
    resources: dict[str, int] = {}
    labels: dict[str, str] = {}
    for bundle in bundles:
        for name, units in bundle.resources.items():
            resources[name] = resources.get(name, 0) + units
        for name, value in bundle.labels.items():
            known = labels.setdefault(name, value)
            if value not in known.split(AND):
                if not _is_condition(known) and not _is_condition(value):
                    return None
                labels[name] = f"{known}{AND}{value}"
    return BundleSpec(resources, labels)


def _is_condition(text: str) -> bool:
    return text.startswith(("!", "in("))


def matching(wanted: Wanted, places: Sequence[Place]) -> dict[int, ProcessId]:
    """As many bundles as possible on nodes of their own, none of which has a bundle of the group already.

    Of the nodes that a bundle suits the first `len(wanted)` are enough: the others can take no more of them.
    """
    candidates: dict[int, list[ProcessId]] = {}
    alike: dict[tuple[object, ...], list[ProcessId]] = {}
    for index, bundle in wanted.items():
        kind = (tuple(bundle.resources.items()), tuple(bundle.labels.items()))
        if kind in alike:
            candidates[index] = alike[kind]
            continue
        found = alike[kind] = candidates[index] = list[ProcessId]()
        for place in _modest_first(bundle.resources, places):
            if place.has == 0 and suits(place, bundle):
                found.append(place.node_id)
                if len(found) == len(wanted):
                    break
    holder: dict[ProcessId, int] = {}
    for index in sorted(wanted, key=lambda index: len(candidates[index])):
        _augment(index, candidates, holder)
    return {index: node_id for node_id, index in holder.items()}


def _augment(start: int, candidates: Mapping[int, Sequence[ProcessId]], holder: dict[ProcessId, int]) -> None:
    """Find a node for one more bundle, moving others where that is needed: a path of moves, breadth first."""
    came_from: dict[ProcessId, int] = {}
    level = [start]
    while level:
        following = []
        for index in level:
            for node_id in candidates[index]:
                if node_id in came_from:
                    continue
                came_from[node_id] = index
                if node_id in holder:
                    following.append(holder[node_id])
                    continue
                free: ProcessId | None = node_id
                while free is not None:
                    mover = came_from[free]
                    left = next((node for node, held in holder.items() if held == mover), None)
                    holder[free] = mover
                    if left is not None:
                        del holder[left]
                    free = left
                return
        level = following


# The strategies ---------------------------------------------------------------------------------------------


def _strict_pack(wanted: Wanted, places: Sequence[Place]) -> Packed | NotPacked:
    whole = together(wanted.values())
    has = [place for place in places if place.has]
    place = _best(whole, has or places) if whole is not None else None
    if place is None:
        return NotPacked(proven=True)
    return Packed(dict.fromkeys(wanted, place.node_id))


def _strict_spread(wanted: Wanted, places: Sequence[Place]) -> Packed | NotPacked:
    found = matching(wanted, places)
    return Packed({index: found[index] for index in wanted}) if len(found) == len(wanted) else NotPacked(proven=True)


def _pack(wanted: Wanted, places: Sequence[Place]) -> dict[int, ProcessId] | None:
    """All on one node if that is possible; else again and again the node that holds the most of the rest."""
    whole = together(wanted.values())
    if whole is not None:
        place = _best(whole, [place for place in places if place.has]) or _best(whole, places)
        if place is not None:
            return dict.fromkeys(wanted, place.node_id)
    nodes: dict[int, ProcessId] = {}
    rest = _largest_first(wanted)
    unused = {place.node_id: place for place in sorted(places, key=lambda place: place.has, reverse=True)}
    while rest:
        best: list[int] = []
        best_place: Place | None = None
        best_score = (0, 0, 0)
        fitting = 0
        for place in unused.values():
            filled = _fill(place, rest, wanted)
            if not filled:
                continue
            score = (len(filled), place.has, -_wasted(place.room, wanted[filled[0]].resources))
            if best_place is None or score > best_score:
                best, best_place, best_score = filled, place, score
            fitting += 1
            if fitting >= FITTING_MAX:
                break
        if best_place is None:
            return None
        nodes.update(dict.fromkeys(best, best_place.node_id))
        del unused[best_place.node_id]
        chosen = set(best)
        rest = [index for index in rest if index not in chosen]
    return nodes


def _fill(place: Place, rest: Sequence[int], wanted: Wanted) -> list[int]:
    """The bundles that go into this node, taken in order."""
    room: dict[str, int] | None = None
    filled = []
    for index in rest:
        bundle = wanted[index]
        if _fits(place.room if room is None else room, bundle.resources) and labels_match(place.labels, bundle.labels):
            if room is None:
                room = dict(place.room)
            _subtract(room, bundle.resources)
            filled.append(index)
    return filled


def _spread(wanted: Wanted, places: Sequence[Place]) -> dict[int, ProcessId] | None:
    """Each bundle, the largest first, to the node with the fewest of the group, and of those the emptiest."""
    room = {place.node_id: place.room for place in places}
    has = {place.node_id: place.has for place in places}
    nodes: dict[int, ProcessId] = {}
    for index in _largest_first(wanted):
        bundle = wanted[index]
        best: ProcessId | None = None
        best_score: tuple[int, int, float] | None = None
        fitting = 0
        for place in places:
            node_id = place.node_id
            if not _fits(room[node_id], bundle.resources) or not labels_match(place.labels, bundle.labels):
                continue
            score = (has[node_id], _wasted(place.room, bundle.resources), -_left(room[node_id], bundle.resources))
            if best_score is None or score < best_score:
                best, best_score = node_id, score
            fitting += 1
            if fitting >= FITTING_MAX and best_score[0] == 0:
                break
        if best is None:
            return None
        after = room[best] = dict(room[best])
        _subtract(after, bundle.resources)
        has[best] += 1
        nodes[index] = best
    return nodes


def _search(wanted: Wanted, places: Sequence[Place], work_max: int, *, spread: bool) -> Packed | NotPacked:
    order = _largest_first(wanted)
    names = list(dict.fromkeys(name for bundle in wanted.values() for name in bundle.resources))
    # Bundles of one kind suit the same nodes; of nodes of one kind no more are needed than there are bundles.
    kinds: dict[tuple[object, ...], int] = {}
    nodes: list[Place] = []
    for place in places:
        labels = tuple(labels_match(place.labels, wanted[index].labels) for index in order)
        kind = (place.has, labels, *(place.room.get(name, 0) for name in names))
        kinds[kind] = kinds.get(kind, 0) + 1
        if kinds[kind] <= len(order):
            nodes.append(place)
    nodes.sort(key=lambda place: place.has, reverse=not spread)
    demands = [tuple(wanted[index].resources.get(name, 0) for name in names) for index in order]
    allowed = [[labels_match(place.labels, wanted[index].labels) for place in nodes] for index in order]
    rooms = [tuple(max(0, place.room.get(name, 0)) for name in names) for place in nodes]
    found = search(demands, allowed, rooms, work_max)
    if isinstance(found, bool):
        return NotPacked(proven=found)
    return Packed({index: nodes[number].node_id for index, number in zip(order, found, strict=True)})


# Comparing --------------------------------------------------------------------------------------------------


def _best(bundle: BundleSpec, places: Sequence[Place]) -> Place | None:
    """The node that the bundle fills best, without devices that it does not need when that is possible."""
    best: Place | None = None
    best_score: tuple[int, float] | None = None
    fitting = 0
    for place in places:
        if not suits(place, bundle):
            continue
        score = (_wasted(place.room, bundle.resources), _left(place.room, bundle.resources))
        if best_score is None or score < best_score:
            best, best_score = place, score
        fitting += 1
        if fitting >= FITTING_MAX and best_score[0] == 0:
            break
    return best


def _modest_first(resources: Mapping[str, int], places: Sequence[Place]) -> Iterator[Place]:
    """The nodes, those with devices that are not asked for last; in their order otherwise. Lazy: few are looked at."""
    others = []
    for place in places:
        if wasted := _wasted(place.room, resources):
            others.append((wasted, place))
        else:
            yield place
    yield from (place for _, place in sorted(others, key=lambda pair: pair[0]))


def _largest_first(wanted: Wanted) -> list[int]:
    """The indexes, those that need the most first: rare kinds count before amounts."""
    most: dict[str, int] = {}
    for bundle in wanted.values():
        for name, units in bundle.resources.items():
            most[name] = max(units, most.get(name, 1))

    def size(index: int) -> tuple[int, int, float]:
        bundle = wanted[index]
        shares = [units / most[name] for name, units in bundle.resources.items()]
        return (len(bundle.labels), len(bundle.resources), sum(shares))

    return sorted(wanted, key=size, reverse=True)


def _fits(room: Mapping[str, int], demand: Mapping[str, int]) -> bool:
    for name, units in demand.items():  # noqa: SIM110 - a generator costs twice as much here
        if units > room.get(name, 0):
            return False
    return True


def _subtract(room: dict[str, int], demand: Mapping[str, int]) -> None:
    for name, units in demand.items():
        room[name] = room.get(name, 0) - units


def _wasted(room: Mapping[str, int], demand: Mapping[str, int]) -> int:
    """How many kinds of special resources the node has that are not asked for: they are for others."""
    return sum(1 for name, units in room.items() if units > 0 and name not in demand and name not in (CPU, MEMORY))


def _left(room: Mapping[str, int], demand: Mapping[str, int]) -> float:
    """Which part of the node's room would be left, over all that is asked."""
    return sum((room[name] - units) / room[name] for name, units in demand.items() if units)
