"""Why a placement group has no place: texts for people, with the nearest that would do. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from actorflow._core.base.resources import format_amount, format_resources, nearest_name
from actorflow._core.policy.bundle_packing import (
    BundleSpec,
    Place,
    Strategy,
    Wanted,
    labels_match,
    matching,
    suits,
    together,
)

VALUES_SHOWN_MAX = 4
"""How many values of a label an error lists."""

Amounts = Mapping[str, int]


def why_not_placed(strategy: Strategy, wanted: Wanted, places: Sequence[Place], *, ever: bool) -> str:
    """Say which bundle does not fit, and what comes nearest. `ever`: the rooms are totals, and it never fits."""
    if not places:
        return "the cluster has no node at the moment"
    for index, bundle in wanted.items():
        if not any(suits(place, bundle) for place in places):
            return _alone(f"bundle {index}", bundle, places, ever)
    whole = together(wanted.values())
    if strategy is Strategy.STRICT_PACK:
        if whole is None:
            return "its bundles ask for labels that contradict one another, and STRICT_PACK wants one node for all. Use PACK"
        return _alone(f"all {len(wanted)} bundles on one node", whole, places, ever)
    if strategy is Strategy.STRICT_SPREAD:
        found = len(matching(wanted, places))
        can = "can ever" if ever else "can at the moment"
        return f"each bundle needs a node of its own, and {found} of {len(wanted)} {can} have one. Add nodes, or use SPREAD"
    asked: dict[str, int] = {}
    for bundle in wanted.values():
        for name, units in bundle.resources.items():
            asked[name] = asked.get(name, 0) + units
    have = {name: sum(max(0, place.room.get(name, 0)) for place in places) for name in asked}
    short = {name: units for name, units in asked.items() if units > have[name]}
    if short:
        nearest = _room(short, have)
        nodes = "the only node has" if len(places) == 1 else f"the {len(places)} nodes together have"
        return f"all {len(wanted)} bundles ask for {format_resources(short)}, and {nodes} {nearest} {_kind(ever)}"
    return f"each of its {len(wanted)} bundles has a place, but no way was found to place all at one time. Make them smaller"


def _alone(what: str, bundle: BundleSpec, places: Sequence[Place], ever: bool) -> str:
    """Why no node holds this one."""
    suitable = [place for place in places if labels_match(place.labels, bundle.labels)]
    if not suitable:
        return _labels(what, bundle.labels, places)
    nearest = min(suitable, key=lambda place: _missing(place.room, bundle.resources))
    asked, has = format_resources(bundle.resources), _room(bundle.resources, nearest.room)
    labels = f" with the labels {dict(bundle.labels)}" if bundle.labels else ""
    text = f"{what} asks for {asked}, and the nearest node{labels}, {nearest.node_id}, has {has} {_kind(ever)}"
    known = dict.fromkeys(name for place in places for name in place.room)
    for name in bundle.resources:
        if ever and name not in known and (near := nearest_name(name, known)):
            return f"{text}. Did you mean {near!r} instead of {name!r}?"
    return text


def _room(asked: Amounts, room: Amounts) -> str:
    """How much of each that is asked for there is, also where that is none."""
    return ", ".join(format_amount(name, room[name]) if room.get(name, 0) > 0 else f"no {name}" for name in asked)


def _labels(what: str, labels: Mapping[str, str], places: Sequence[Place]) -> str:
    asked = dict(labels)
    for name, value in labels.items():
        values = list(dict.fromkeys(place.labels[name] for place in places if name in place.labels))
        if not any(labels_match(place.labels, {name: value}) for place in places):
            shown = ", ".join(map(repr, values[:VALUES_SHOWN_MAX])) + (" ..." if len(values) > VALUES_SHOWN_MAX else "")
            there = f"{name!r} is {shown} where a node has it" if values else f"no node has {name!r}"
            return f"{what} asks for a node with the labels {asked}, and {there}"
    return f"{what} asks for a node with the labels {asked}, and no node has all of them"


def _missing(room: Amounts, demand: Amounts) -> float:
    """How much is missing, in parts of what is asked."""
    return sum(max(0, units - max(0, room.get(name, 0))) / units for name, units in demand.items() if units)


def _kind(ever: bool) -> str:
    return "in all" if ever else "free"
