"""Devices by configuration: ACTORFLOW_SIMULATED_DEVICES="GPU:4:A100,TPU:8:v5e" instead of those that the machine has.

Nothing of them exists but their ids: for tests of code that asks for devices, on machines without. Set and empty: no devices at all, and
nothing is looked for.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from actorflow._core.base.errors import OptionError
from actorflow._core.base.resources import DEVICE_NAMES

VARIABLE = "ACTORFLOW_SIMULATED_DEVICES"
COUNT_MAX = 1024
"""Of one name; a machine with more does not exist, a slip of the finger does."""
EXAMPLE = f'{VARIABLE}="GPU:4:A100,TPU:8:v5e"'
TYPE = re.compile(r"[A-Za-z0-9._-]+")


class Group(NamedTuple):
    """So many devices of one type. `type`: empty for none."""

    resource: str
    number: int
    type: str


def parse(text: str) -> list[Group]:
    """What the variable asks for. Raises OptionError, which says what would be right."""
    return [_group(text, entry.strip()) for entry in text.split(",")] if text.strip() else []


def _group(text: str, entry: str) -> Group:
    name, *rest = [part.strip() for part in entry.split(":")]
    resource = {known.lower(): known for known in DEVICE_NAMES}.get(name.lower())
    if not entry:
        raise _wrong(text, "has an empty entry", "there is a comma with nothing before or behind it")
    if resource is None:
        raise _wrong(text, f"cannot be used: {name!r} in {entry!r} is no kind of device", f"known are {', '.join(DEVICE_NAMES)}")
    if not rest or len(rest) > 2:
        raise _wrong(text, f"cannot be used: {entry!r} has {len(rest) + 1} parts", "an entry is NAME:COUNT or NAME:COUNT:TYPE")
    count, type_ = rest[0], rest[1] if len(rest) == 2 else ""
    if not (count.isascii() and count.isdecimal() and int(count) <= COUNT_MAX):
        raise _wrong(text, f"cannot be used: {count!r} in {entry!r} is no count", f"a whole number from 0 to {COUNT_MAX} is")
    if len(rest) == 2 and not TYPE.fullmatch(type_):
        raise _wrong(text, f"cannot be used: {type_!r} in {entry!r} is no type", "letters, digits and .-_ make one; leave it out for none")
    return Group(resource, int(count), type_)


def _wrong(text: str, what: str, why: str) -> OptionError:
    return OptionError.explain(which=f"{VARIABLE}={text!r}", what=what, why=why, next_step=f"Write it as {EXAMPLE}, or unset it")
