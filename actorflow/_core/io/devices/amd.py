"""AMD GPUs: asked for as `GPU`, found in the topology that the kernel driver (KFD) shows, shown by ROCR_VISIBLE_DEVICES.

Two layers read variables. ROCr counts as the kernel does and knows numbers and uuids; set and empty it hides all. HIP counts what ROCr has
left; set and empty it hides nothing. So a worker is told its devices by the first, and by the second that it may use all of these.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from actorflow._core.base.resources import GPU
from actorflow._core.io.devices.kinds import Device, Kind, Machine, by_number, by_uuid, pick

ROCR_VARIABLE = "ROCR_VISIBLE_DEVICES"
HIP_VARIABLE = "HIP_VISIBLE_DEVICES"
CUDA_VARIABLE = "CUDA_VISIBLE_DEVICES"
"""HIP reads it where its own is empty."""
NODES = "/sys/class/kfd/kfd/topology/nodes"
AMD = 0x1002
"""The vendor's number on the PCI bus."""
TYPES = {
    0x738C: "MI100", 0x738E: "MI100", 0x7408: "MI250X", 0x740C: "MI250X", 0x740F: "MI210", 0x7410: "MI210",
    0x74A0: "MI300A", 0x74A1: "MI300X", 0x74A9: "MI300X", 0x74B5: "MI300X", 0x74BD: "MI300X",
    0x74A2: "MI308X", 0x74A8: "MI308X", 0x74B6: "MI308X", 0x74A5: "MI325X", 0x74B9: "MI325X",
    0x75A0: "MI350X", 0x75B0: "MI350X", 0x75A3: "MI355X", 0x75B3: "MI355X",
}  # fmt: skip
"""By the device's number on the PCI bus; of others the type is not known."""
OWN_TYPE = re.compile(r"(MI\d|RX-|Radeon)")


def find(machine: Machine) -> list[Device]:
    """See Kind. A node of the topology with SIMDs is a GPU; one whose properties may not be read is somebody else's."""
    devices: list[Device] = []
    for node in machine.numbers(NODES):
        properties = _numbers(machine.read(f"{NODES}/{node}/properties"))
        if not properties.get("simd_count") or properties.get("vendor_id") != AMD:
            continue
        unique = properties.get("unique_id", 0)
        devices.append(
            Device(
                len(devices),
                type=TYPES.get(properties.get("device_id", 0), ""),
                memory_bytes=_memory_bytes(machine, node),
                uuid=f"GPU-{unique:016x}" if unique else "",
            )
        )
    return devices


def _memory_bytes(machine: Machine, node: int) -> int:
    banks = f"{NODES}/{node}/mem_banks"
    return sum(_numbers(machine.read(f"{banks}/{bank}/properties")).get("size_in_bytes", 0) for bank in machine.numbers(banks))


def _numbers(text: str) -> dict[str, int]:
    """Lines of a name and a number."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def restrict(machine: Machine, devices: list[Device]) -> list[Device]:
    """See Kind: first by ROCr's variable, then by HIP's, which counts what that has left."""
    numbered = by_number(devices)
    text = machine.environ.get(ROCR_VARIABLE)
    if text is not None:
        devices = pick(ROCR_VARIABLE, text, devices, lambda entry: by_uuid(devices, entry) if entry.startswith("GPU-") else numbered(entry))
    for variable in (HIP_VARIABLE, CUDA_VARIABLE):
        if text := machine.environ.get(variable, ""):
            places = {str(place): device for place, device in enumerate(devices)}
            return pick(variable, text, devices, places.get)
    return devices


def show(shown: Sequence[str], total: int) -> dict[str, str]:
    """See Kind."""
    return {ROCR_VARIABLE: ",".join(shown), HIP_VARIABLE: ",".join(map(str, range(len(shown))))}


KIND = Kind(
    name="amd",
    resource=GPU,
    variable=ROCR_VARIABLE,
    find=find,
    restrict=restrict,
    show=show,
    owns=lambda type_: OWN_TYPE.match(type_) is not None,
    advice="run rocminfo, which says more; a user needs the groups render and video to reach the devices",
)
