"""Why no node can hold some work: which one comes nearest, and what is missing there. Pure.

This looks at every node, and costs milliseconds for thousands of them. Who asks often keeps the answer for as long as
no node joins, leaves, or has other totals or labels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from actorflow._core.base.resources import UNIT, format_amount, nearest_name
from actorflow._core.policy.label_selectors import Condition, Selector
from actorflow._core.policy.node_records import ACCELERATOR_PREFIX, NodeRecord
from actorflow._core.policy.work_class import Infeasible, WorkClass

NOTHING = "nothing"


def explain_infeasible(work: WorkClass, nodes: Collection[NodeRecord]) -> Infeasible:
    """Say what no node can hold, and what the nearest lacks. There is a node, and none holds it."""
    candidates = ((node, selector) for node in nodes for selector in work.selectors)
    node, selector = min(candidates, key=lambda candidate: _distance(work, *candidate))  # of equals the first
    reason = (
        f"it asks for {_asked(work)}, and no node can ever hold that: "
        f"the nearest is node {node.node_id}, {_what_is_wrong(work, node, selector)}{_hint(work, nodes)}"
    )
    return Infeasible(reason, node.node_id, missing_resources(work, node))


def explain_node(work: WorkClass, node: NodeRecord) -> Infeasible:
    """Say why the one node that was asked for can never hold the work."""
    selector = min(work.selectors, key=lambda selector: _distance(work, node, selector))
    asked = f"{what} on " if (what := _asked(work)) != NOTHING else ""
    reason = f"it asks for {asked}node {node.node_id} only, {_what_is_wrong(work, node, selector)}"
    return Infeasible(reason, node.node_id, missing_resources(work, node))


def missing_resources(work: WorkClass, node: NodeRecord) -> dict[str, int]:
    """What a node has too little of even when it is idle."""
    total = node.total
    return {name: units - total.get(name, 0) for name, units in work.resources.items() if units > total.get(name, 0)}


def _distance(work: WorkClass, node: NodeRecord, selector: Selector) -> int:
    """How far a node is from holding the work.

    The missing share of each resource, twice as much for one that is not there at all, and one for each wrong label.
    """
    missing = 0
    for name, units in missing_resources(work, node).items():
        missing += units * UNIT // work.resources[name] if node.total.get(name) else 2 * UNIT
    wrong = sum(not condition.holds(node.labels) for condition in selector.conditions)
    return 2 * (missing + wrong * UNIT) + node.draining


def _what_is_wrong(work: WorkClass, node: NodeRecord, selector: Selector) -> str:
    has = [*_shortages(work, node), *_labels(node, selector)]
    parts = [f"has {', '.join(has[:-1])}{' and ' if len(has) > 1 else ''}{has[-1]}"] if has else []
    if node.draining:
        parts.append("is being drained" if node.report.draining else "is heard only through other nodes at the moment")
    return "which " + " and ".join(parts)


def _shortages(work: WorkClass, node: NodeRecord) -> Iterator[str]:
    for name, units in missing_resources(work, node).items():
        if total := node.total.get(name, 0):
            yield f"{_amount(name, total)} in all ({_amount(name, units)} too few)"
        else:
            yield f"no {_kind(name)}"


def _labels(node: NodeRecord, selector: Selector) -> Iterator[str]:
    for condition in selector.conditions:
        if not condition.holds(node.labels):
            value = node.labels.get(condition.key)
            yield f"the label {condition.key}={value}" if value is not None else f"no label {condition.key}"


def _asked(work: WorkClass) -> str:
    text = " and ".join(_amount(name, units) for name, units in work.resources.items())
    labels = " or ".join(str(selector) for selector in work.selectors if selector.conditions)
    if not labels:
        return text or NOTHING
    return f"{text} and the labels {labels}" if text else f"the labels {labels}"


def _amount(name: str, units: int) -> str:
    """One amount; that of a kind of accelerator says nothing, see ACCELERATOR_PREFIX."""
    return f"an {_kind(name)}" if name.startswith(ACCELERATOR_PREFIX) else format_amount(name, units)


def _kind(name: str) -> str:
    return f"accelerator of the type {name.removeprefix(ACCELERATOR_PREFIX)}" if name.startswith(ACCELERATOR_PREFIX) else name


def _hint(work: WorkClass, nodes: Iterable[NodeRecord]) -> str:
    """What a name that no node knows was probably meant to be."""
    resources = dict.fromkeys(name for node in nodes for name in node.total)
    for name in work.resources:
        if name not in resources:
            prefix = ACCELERATOR_PREFIX if name.startswith(ACCELERATOR_PREFIX) else ""
            alike = [known.removeprefix(prefix) for known in resources if known.startswith(prefix)]
            if hint := _meant(name.removeprefix(prefix), alike):
                return hint
    for selector in work.selectors:
        for condition in selector.conditions:
            if not condition.negated and (hint := _label_hint(condition, nodes)):
                return hint
    return ""


def _label_hint(condition: Condition, nodes: Iterable[NodeRecord]) -> str:
    values = dict.fromkeys(node.labels[condition.key] for node in nodes if condition.key in node.labels)
    if not values:
        return _meant(condition.key, dict.fromkeys(key for node in nodes for key in node.labels))
    for value in condition.values:
        if value not in values and (hint := _meant(value, values)):
            return hint
    return ""


def _meant(name: str, known: Iterable[str]) -> str:
    near = nearest_name(name, known)
    return f". Did you mean {near!r} instead of {name!r}?" if near else ""
