"""What a node says it has of accelerators: what it finds, unless its user has said a number."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, count
from typing import TYPE_CHECKING, NamedTuple

from actorflow._core.base.resources import ACCELERATOR_TYPE, UNIT
from actorflow._core.io.devices.signs import any_sign

if TYPE_CHECKING:
    from actorflow._core.io.devices.kinds import Device, Kind, Machine
    from actorflow._core.io.devices.registry import Display

TYPE_LABEL = "accelerator_type"


class NodeDevices(NamedTuple):
    """For NodeConfig."""

    resources: dict[str, int]
    """Totals, those of the devices and their types among them, in units."""
    labels: dict[str, str]
    """`accelerator_type`: that of most devices."""
    ids: dict[str, list[int]]
    types: dict[str, dict[int, str]]
    displays: dict[str, Display]


def own_devices(resources: Mapping[str, int], given: Mapping[str, int] | None = None, machine: Machine | None = None) -> NodeDevices:
    """Find the devices of this machine, and add them to the resources of its node. `given` numbers win: 0 hides what is there.

    Raises OptionError for a wrong ACTORFLOW_SIMULATED_DEVICES.
    """
    own = NodeDevices(dict(resources), {}, {}, {}, {})
    environ, root = (machine.environ, machine.root) if machine is not None else (os.environ, "/")
    if not any((given or {}).values()) and not environ.get("ACTORFLOW_SIMULATED_DEVICES") and not any_sign(root):
        return own

    from actorflow._core.io.devices.kinds import Machine
    from actorflow._core.io.devices.registry import Found, default_kind, find_devices

    machine, given = machine or Machine(), given or {}
    # Who has hidden all kinds does not wait for a driver.
    found = find_devices(machine, hidden=[name for name, number in given.items() if not number])
    types: Counter[str] = Counter()
    for name in [*found, *(name for name in given if name not in found)]:
        there = found.get(name) or Found(default_kind(name))
        devices = _of_number(machine, there.kind, there.devices, given.get(name, len(there.devices)))
        if devices:
            _add(own, name, there.kind, devices)
            types.update(device.type for device in devices if device.type)
    for type_, _ in types.most_common(1):
        own.labels[TYPE_LABEL] = type_
    return own


def _add(own: NodeDevices, name: str, kind: Kind, devices: Sequence[Device]) -> None:
    from actorflow._core.io.devices.registry import Display

    own.resources[name] = len(devices) * UNIT
    own.ids[name] = [device.number for device in devices]
    own.types[name] = {device.number: device.type for device in devices if device.type}
    own.displays[name] = Display(kind, len(devices), {device.number: device.shown for device in devices if device.shown})
    for device in devices:
        if device.type:
            own.resources.setdefault(f"{ACCELERATOR_TYPE}{device.type}", UNIT)


def _of_number(machine: Machine, kind: Kind, devices: Sequence[Device], number: int) -> list[Device]:
    """So many of them; where there are too few, the user knows of more: what the node's variable names, then the lowest numbers."""
    from actorflow._core.io.devices.kinds import Device

    chosen = list(devices[:number])
    named = [int(entry) for entry in machine.environ.get(kind.variable, "").split(",") if entry.strip().isdecimal()]
    taken = {device.number for device in chosen}
    for candidate in chain(named, count()):
        if len(chosen) >= number:
            return chosen
        if candidate not in taken:
            taken.add(candidate)
            chosen.append(Device(candidate))
    raise AssertionError("DV-2: numbers do not end")
