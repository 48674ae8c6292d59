"""Label selectors: on which nodes a piece of work may run, said by their labels. Pure.

    {"zone": "a"}           the node has this label with this value
    {"zone": "!a"}          it has another value, or no such label
    {"zone": "in(a,b)"}     it has the label, with one of these values
    {"zone": "!in(a,b)"}    it has none of these values, or no such label

All conditions of a selector must hold. Labels and selectors are checked once, where the user wrote them; whoever
holds a `Selector` need not check again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from actorflow._core.base.errors import OptionError, OptionTypeError

LABEL_CHARS_MAX = 63
"""The longest name and the longest value. Precedent: Kubernetes."""

RESERVED_PREFIX = "actorflow.io/"
"""Labels of this kind are set by the cluster itself; selectors may ask for them."""

NODE_ID_LABEL = RESERVED_PREFIX + "node-id"
ACCELERATOR_LABEL = RESERVED_PREFIX + "accelerator-type"

_VALUE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
_NAME = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?/)?([A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?)")
_LIST = re.compile(r"in\((.*)\)", re.DOTALL)

VALUE_RULE = f"1 to {LABEL_CHARS_MAX} letters, digits, '-', '_' and '.', with a letter or digit at both ends"


@dataclass(frozen=True, slots=True)
class Condition:
    """One label, and which values are right; `negated`: which are wrong."""

    key: str
    values: tuple[str, ...]
    negated: bool

    def holds(self, labels: Mapping[str, str]) -> bool:
        """True when a node with these labels is right. A label that is not there has no wrong value."""
        return (labels.get(self.key) in self.values) != self.negated

    def __str__(self) -> str:
        mark = "!" if self.negated else ""
        value = self.values[0] if len(self.values) == 1 else f"in({','.join(self.values)})"
        return f"{self.key}={mark}{value}"


@dataclass(frozen=True, slots=True)
class Selector:
    """Conditions that must all hold; without any, every node is right."""

    conditions: tuple[Condition, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """True when a node with these labels is right."""
        return all(condition.holds(labels) for condition in self.conditions)

    def __str__(self) -> str:
        return ", ".join(map(str, self.conditions))


def parse_selector(option: str, value: object) -> Selector:
    """Return the selector that the user wrote, as in {"zone": "in(a,b)"}. Raises OptionError, which names `option`."""
    conditions = []
    for key, text in _texts_by_name(option, value):
        _check_name(option, key, value)
        conditions.append(_condition(f"{option}[{key!r}]", option, key, text))
    return Selector(tuple(conditions))


def parse_selectors(option: str, primary: object, fallback_option: str = "", fallbacks: object = ()) -> tuple[Selector, ...]:
    """Return the selector and, in the order in which they are tried after it, its fallbacks. Raises OptionError."""
    if not isinstance(fallbacks, list | tuple):
        right = f"A list of selectors is right, as in {fallback_option}=[{{'zone': 'b'}}]"
        raise _wrong_type(fallback_option, fallbacks, fallback_option, right)
    found = [parse_selector(option, primary)]
    found += [parse_selector(f"{fallback_option}[{number}]", each) for number, each in enumerate(fallbacks)]
    return tuple(dict.fromkeys(found))


def check_labels(option: str, value: object) -> dict[str, str]:
    """Return the labels of a node as the user wrote them. Raises OptionError, which names `option`."""
    labels = {}
    for key, text in _texts_by_name(option, value):
        _check_name(option, key, value)
        which = f"{option}[{key!r}]"
        if key.startswith(RESERVED_PREFIX):
            what = f"begins with {RESERVED_PREFIX!r}, and such labels are set by the cluster itself"
            raise _wrong(which, text, option, what, "Choose another name")
        _check_value(which, text, option, text)
        labels[key] = text
    return labels


def _condition(which: str, option: str, key: str, text: str) -> Condition:
    negated = text.startswith("!")
    body = text.removeprefix("!")
    listed = _LIST.fullmatch(body)
    if listed is not None:
        values = [part.strip() for part in listed[1].split(",")]
        if values == [""]:
            raise _wrong(which, text, option, "lists no value", "Write the values, as in 'in(a,b)'")
    elif body.startswith("in("):
        raise _wrong(which, text, option, "has no closing bracket at its end", f"Write {text.rstrip() + ')'!r}")
    else:
        values = [body]
    for each in values:
        _check_value(which, text, option, each)
    return Condition(key, tuple(dict.fromkeys(values)), negated)


def _check_value(which: str, text: str, option: str, value: str) -> None:
    if not value:
        raise _wrong(which, text, option, "has an empty value", "Write a value, as in 'a', '!a', 'in(a,b)' or '!in(a,b)'")
    if _VALUE.fullmatch(value) and len(value) <= LABEL_CHARS_MAX:
        return
    whose = "" if value == text else f" in {value!r}"
    what = f"is not a value of a label{whose}"
    if "," in value and "(" not in value:
        parts = ",".join(part.strip() for part in value.split(","))
        raise _wrong(which, text, option, what, f"For one of several values write 'in({parts})'")
    raise OptionError.explain(which=f"{which}={text!r}", what=what, why=f"it must be {VALUE_RULE}", next_step=_FORMS, option=option)


_FORMS = "Write 'a', '!a', 'in(a,b)' or '!in(a,b)'"


def _check_name(option: str, key: str, value: object) -> None:
    match = _NAME.fullmatch(key)
    if match is None or len(match[1]) > LABEL_CHARS_MAX:
        raise OptionError.explain(
            which=f"{option}={value!r}",
            what=f"has a label of the name {key!r}, which cannot be one",
            why=f"it must be {VALUE_RULE}, and may have a prefix as in 'example.com/zone'",
            next_step="Name the label as the nodes do",
            option=option,
        )


def _texts_by_name(option: str, value: object) -> Iterable[tuple[str, str]]:
    right = f"A dict of texts is right, as in {option}={{'zone': 'a'}}"
    if not isinstance(value, Mapping):
        raise _wrong_type(option, value, option, right)
    for key, text in value.items():
        if not isinstance(key, str):
            raise _wrong_type(option, value, option, f"The name of a label is text, not {key!r}")
        if not isinstance(text, str):
            raise _wrong_type(f"{option}[{key!r}]", text, option, right)
        yield key, text


def _wrong(which: str, value: object, option: str, what: str, next_step: str) -> OptionError:
    return OptionError.explain(which=f"{which}={value!r}", what=what, next_step=next_step, option=option)


def _wrong_type(which: str, value: object, option: str, next_step: str) -> OptionTypeError:
    what = f"is of the type {type(value).__name__}"
    return OptionTypeError.explain(which=f"{which}={value!r}", what=what, next_step=next_step, option=option)
