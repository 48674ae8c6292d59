"""All kinds of accelerators, and what this machine has of them.

DV-1: on a node that has devices of a kind, the variables of that kind are set for every worker: one that asked for none sees none. What
      was not asked for is not used by accident.
DV-2: what cannot be found does not stop a node: a driver that does not answer is a warning that says what to do, and no devices.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from actorflow._core.base.errors import OptionError
from actorflow._core.io.devices import amd, nvidia, simulated, tpu
from actorflow._core.io.devices.kinds import Device, Kind, Machine

log = logging.getLogger(__name__)

KINDS: tuple[Kind, ...] = (nvidia.KIND, amd.KIND, tpu.KIND)
"""What each can be seen by is in `signs` too. The first of a resource is what a node has that says a number and finds nothing."""


NO_TEXTS: Mapping[int, str] = MappingProxyType({})


class Found(NamedTuple):
    """The devices of one resource."""

    kind: Kind
    devices: tuple[Device, ...] = ()


class Display(NamedTuple):
    """How workers of a node are shown the devices of one resource."""

    kind: Kind
    total: int
    """How many the node has."""
    texts: Mapping[int, str] = NO_TEXTS
    """The names of those that are not called by their numbers."""

    def variables(self, numbers: Sequence[int]) -> dict[str, str]:
        """DV-1: those that show these devices, and hide the others."""
        return self.kind.show([self.texts.get(number, str(number)) for number in numbers], self.total)


def default_kind(resource: str) -> Kind:
    """The kind of a resource whose devices were not found. Raises KeyError for what is no device."""
    for kind in KINDS:
        if kind.resource == resource:
            return kind
    raise KeyError(resource)


def find_devices(machine: Machine | None = None, hidden: Sequence[str] = ()) -> dict[str, Found]:
    """The devices that this process may use, by resource; milliseconds where there are none. For those `hidden` no driver is asked.

    Raises OptionError for a wrong ACTORFLOW_SIMULATED_DEVICES, and nothing else (DV-2).
    """
    machine = machine or Machine()
    text = machine.environ.get(simulated.VARIABLE)
    everything = _simulated(text) if text is not None else _real(machine, hidden)
    found: dict[str, Found] = {}
    for kind, devices in everything:
        usable = tuple(kind.restrict(machine, devices)) if devices and kind.resource not in hidden else ()
        if not usable:
            continue
        other = found.setdefault(kind.resource, Found(kind, usable))
        if other.kind is not kind:
            log.warning(
                "this node has %s devices of the kinds %s and %s: the first are used, the other %d are not. "
                "Hide one kind from it with %s='' or %s=''",
                kind.resource, other.kind.name, kind.name, len(usable), other.kind.variable, kind.variable,
            )  # fmt: skip
    return found


def _real(machine: Machine, hidden: Sequence[str]) -> list[tuple[Kind, list[Device]]]:
    everything = []
    for kind in KINDS:
        if kind.resource in hidden:
            continue
        try:
            everything.append((kind, kind.find(machine)))
        except Exception as error:
            log.warning(
                "the %s devices of this node (%s) could not be found, and it goes on without: %s: %s. To mend it %s. "
                "0 of them in af.init (num_gpus=0) says that none are wanted",
                kind.name, kind.resource, type(error).__name__, error, kind.advice,
            )  # fmt: skip
    return everything


def _simulated(text: str) -> list[tuple[Kind, list[Device]]]:
    everything: dict[str, tuple[Kind, list[Device]]] = {}
    for group in simulated.parse(text):
        kind = _kind_of(group.resource, group.type)
        other, devices = everything.setdefault(group.resource, (kind, []))
        if other is not kind:
            raise OptionError.explain(
                which=f"{simulated.VARIABLE}={text!r}",
                what=f"mixes {group.resource} devices of the kinds {other.name} and {kind.name}",
                why="each kind has its own variables, and a node has one kind of a resource",
                next_step="Leave one of them out",
            )
        devices += [Device(len(devices) + n, type=group.type) for n in range(group.number)]
    return list(everything.values())


def _kind_of(resource: str, type_: str) -> Kind:
    """The kind that makes this type, the most particular first."""
    kinds = [kind for kind in KINDS if kind.resource == resource]
    return next((kind for kind in reversed(kinds) if kind.owns(type_)), kinds[0])
