"""TPUs of a Google Cloud machine: asked for as `TPU`, one for each chip, shown by TPU_VISIBLE_CHIPS.

Older generations have a driver of their own (/dev/accel0); newer ones are handed through by VFIO (/dev/vfio/0), as other devices are too,
so there the PCI bus is asked whose they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from actorflow._core.base.resources import TPU
from actorflow._core.io.devices.kinds import Device, Kind, Machine, by_number, pick

VARIABLE = "TPU_VISIBLE_CHIPS"
TYPE_VARIABLE = "TPU_ACCELERATOR_TYPE"
PCI = "/sys/bus/pci/devices"
GOOGLE = "0x1ae0"
PCI_TYPES = {"0x0027": "", "0x005e": "v4", "0x0062": "v5p", "0x0063": "v5e", "0x006f": "v6e", "0x0076": "v7x"}
"""By the device's number on the PCI bus. The first is a v2 or a v3."""
NAMES = {"v5litepod": "v5e"}
"""Types that have another name in TPU_ACCELERATOR_TYPE."""
BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1"}
"""How so many chips lie beside each other."""
OWN_TYPE = re.compile(r"v\d+[a-z]*")


def find(machine: Machine) -> list[Device]:
    """See Kind."""
    chips, type_ = len(machine.numbers("/dev", "accel")), ""
    if not chips and (groups := machine.numbers("/dev/vfio")):
        on_bus = _types_on_bus(machine)
        if not on_bus and TYPE_VARIABLE not in machine.environ:
            return []
        chips = min(len(groups), len(on_bus)) if on_bus else len(groups)
        type_ = on_bus[0] if on_bus else ""
    elif chips:
        type_ = next(iter(_types_on_bus(machine)), "")
    named = _type_in(machine.environ.get(TYPE_VARIABLE, ""))
    return [Device(number, type=named or type_) for number in range(chips)]


def _types_on_bus(machine: Machine) -> list[str]:
    """One for each TPU chip on the PCI bus."""
    ours = [name for name in machine.names(PCI) if machine.read(f"{PCI}/{name}/vendor") == GOOGLE]
    numbers = [machine.read(f"{PCI}/{name}/device") for name in sorted(ours)]
    return [PCI_TYPES[number] for number in numbers if number in PCI_TYPES]


def _type_in(text: str) -> str:
    """`v5litepod-8`, which names a slice of 8, is of the type `v5e`."""
    name = text.partition("-")[0]
    return NAMES.get(name, name)


def restrict(machine: Machine, devices: list[Device]) -> list[Device]:
    """See Kind."""
    text = machine.environ.get(VARIABLE)
    return devices if text is None else pick(VARIABLE, text, devices, by_number(devices))


def show(shown: Sequence[str], total: int) -> dict[str, str]:
    """See Kind. Who has a part of a host's chips is also told how they lie: else the runtime looks for the others."""
    variables = {VARIABLE: ",".join(shown)}
    if len(shown) < total and len(shown) in BOUNDS:
        variables |= {"TPU_CHIPS_PER_PROCESS_BOUNDS": BOUNDS[len(shown)], "TPU_PROCESS_BOUNDS": "1,1,1"}
    return variables


KIND = Kind(
    name="tpu",
    resource=TPU,
    variable=VARIABLE,
    find=find,
    restrict=restrict,
    show=show,
    owns=lambda type_: OWN_TYPE.fullmatch(type_) is not None,
    advice="look for /dev/accel* or /dev/vfio: in a container both must be handed through",
)
