"""Where a piece of work may run, as it travels with it: labels, and a strategy other than the default one. Pure.

The text is JSON, empty for most work; for work in a placement group it is that and nothing else. The options write it
(`actorflow/options.py`), nodes and head read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from actorflow._core.base.ids import GroupId
from actorflow._core.policy.label_selectors import parse_selectors
from actorflow._core.policy.work_class import ANY_NODE, NodeAffinity, Strategy, WorkClass

GROUP = "group:"
"""How the text of work in a placement group begins; what follows is its id and the index of the bundle."""

LABELS, FALLBACKS, STRATEGY, NODE, SOFT = "labels", "fallbacks", "strategy", "node", "soft"


def wish_text(
    labels: Mapping[str, str] | None,
    fallbacks: Sequence[Mapping[str, str]] = (),
    *,
    spread: bool = False,
    node: str = "",
    soft: bool = False,
) -> str:
    """The text for these wishes; empty for none."""
    wish: dict[str, object] = {LABELS: dict(labels)} if labels else {}
    if fallbacks:
        wish[FALLBACKS] = [dict(selector) for selector in fallbacks]
    if spread:
        wish[STRATEGY] = Strategy.SPREAD.value
    if node:
        wish |= {NODE: node, SOFT: soft}
    return json.dumps(wish, sort_keys=True) if wish else ""


def in_group(group_id: GroupId, index: int) -> str:
    """The text for work in a bundle of a placement group; `index` -1: in any one."""
    return f"{GROUP}{group_id}:{index}"


def group_of(text: str) -> tuple[GroupId, int]:
    """The group and the index in a text that begins with GROUP. Raises ValueError for what no options have written."""
    group_id, _, index = text.removeprefix(GROUP).rpartition(":")
    return group_id, int(index)


def work_class(resources: Mapping[str, int], text: str) -> WorkClass:
    """The class of work with these resources and this wish. Raises ValueError for what no options have written."""
    if not text:
        return WorkClass(resources)
    wish = json.loads(text)
    selectors = parse_selectors(LABELS, wish[LABELS], FALLBACKS, wish.get(FALLBACKS, ())) if LABELS in wish else ANY_NODE
    strategy: Strategy | NodeAffinity = Strategy(wish.get(STRATEGY, Strategy.DEFAULT.value))
    if NODE in wish:
        strategy = NodeAffinity(str(wish[NODE]), bool(wish.get(SOFT)))
    return WorkClass(resources, selectors=selectors, strategy=strategy)
