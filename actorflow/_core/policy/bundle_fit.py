"""Whether a bundle could ever hold a piece of work, whoever is in it now. Pure; owner, head and node ask the same question here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from actorflow._core.base.ids import GroupId
from actorflow._core.base.resources import format_resources

Amounts = Mapping[str, int]


def could_hold(bundle: Amounts, demand: Amounts) -> bool:
    """True when the empty bundle has so much of everything."""
    return all(units <= bundle.get(name, 0) for name, units in demand.items())


def why_in_none(group_id: GroupId, demand: Amounts, bundles: Iterable[tuple[int, Amounts]]) -> str:
    """Why none of these bundles, given with their numbers, could ever hold `demand`; an empty string when one could."""
    each = list(bundles)
    if any(could_hold(bundle, demand) for _, bundle in each):
        return ""
    shown = ", ".join(f"bundle {number} has {format_resources(bundle)}" for number, bundle in each[:4])
    return (
        f"placement group {group_id}: {format_resources(demand)} is asked for in one bundle, and {shown}"
        f"{' ...' if len(each) > 4 else ''}. Ask for less, or make the bundle larger"
    )
