"""NVIDIA GPUs: asked for as `GPU`, shown by CUDA_VISIBLE_DEVICES.

The driver is asked through NVML (the package nvidia-ml-py, imported as pynvml). Without the package the driver's own files say how many
there are and their names. NVML can hang on a wedged driver, so it is asked on a thread that may be left behind.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from typing import Any

from actorflow._core.base.resources import GPU
from actorflow._core.io.devices.kinds import Device, Kind, Machine, by_number, by_uuid, pick
from actorflow._core.io.devices.signs import SIGNS

log = logging.getLogger(__name__)

VARIABLE = "CUDA_VISIBLE_DEVICES"
ORDER_VARIABLE = "CUDA_DEVICE_ORDER"
PROC = "/proc/driver/nvidia/gpus"
ANSWER_TIMEOUT_S = 10.0
"""How long NVML may take. A driver that has to wake a large machine's GPUs takes seconds."""

BRANDS = frozenset({"NVIDIA", "Tesla", "GeForce", "Quadro", "GRID"})
FAMILIES = frozenset({"RTX", "GTX", "TITAN"})
"""These are a part of the type, with the words behind them: `RTX-4090`."""
NO_TYPE = frozenset({"Blackwell", "Edition", "GPU", "Generation", "Server", "Workstation", "Max-Q", "with", "Design"})
MEMORY = re.compile(r"\d+GB")


def find(machine: Machine) -> list[Device]:
    """See Kind. Raises what NVML raises."""
    if not any(machine.exists(sign) for sign in SIGNS["nvidia"]):
        return []
    try:
        nvml = machine.load("pynvml")
    except ImportError:
        devices = from_files(machine)
        if devices:  # Else this is a container that sees the driver of its machine and no GPU.
            log.warning(
                "this machine has an NVIDIA driver and the package nvidia-ml-py is not installed: %d GPUs were counted from the driver's "
                "files, and their memory is not known. pip install 'actorflow[gpu]', or nvidia-ml-py",
                len(devices),
            )
        return devices
    return _in_time(nvml)


def _in_time(nvml: Any) -> list[Device]:
    """What NVML says, within a bound. Raises what it raises, or TimeoutError."""
    said: list[list[Device]] = []
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            said.append(from_nvml(nvml))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=ask, name="actorflow-nvml", daemon=True)
    thread.start()
    thread.join(ANSWER_TIMEOUT_S)
    if failed:
        raise failed[0]
    if not said:
        raise TimeoutError(f"NVML did not answer within {ANSWER_TIMEOUT_S:g} s")
    return said[0]


def from_nvml(nvml: Any) -> list[Device]:
    """All GPUs that the driver shows to this process. Raises NVMLError when the driver does not answer; a GPU that does not is left out."""
    nvml.nvmlInit()
    try:
        devices = []
        for number in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(number)
                name, uuid = _text(nvml.nvmlDeviceGetName(handle)), _text(nvml.nvmlDeviceGetUUID(handle))
                memory_bytes = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
            except nvml.NVMLError as error:
                advice = "look at it with nvidia-smi, and reset it or its machine"
                log.warning("GPU %d does not answer (%s) and is not used: %s", number, error, advice)
            else:
                devices.append(Device(number, type=accelerator_type(name), memory_bytes=memory_bytes, uuid=uuid))
        return devices
    finally:
        nvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    """Older versions of pynvml return bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def from_files(machine: Machine) -> list[Device]:
    """The same from what the driver has in /proc and /dev: a container sees all of the first, and of the second what it may use."""
    minors = machine.numbers("/dev", "nvidia")
    gpus = [_fields(machine.read(f"{PROC}/{bus}/information")) for bus in sorted(machine.names(PROC))]
    usable = [gpu for gpu in gpus if gpu.get("Device Minor", "") in map(str, minors)]
    if not usable:
        return [Device(number) for number in range(len(minors))]
    return [
        Device(number, type=accelerator_type(gpu.get("Model", "")), uuid=gpu.get("GPU UUID", "")) for number, gpu in enumerate(usable)
    ]


def _fields(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def accelerator_type(name: str) -> str:
    """The type in a product's name: `NVIDIA A100-SXM4-80GB` is an `A100`, `NVIDIA GeForce RTX 4090` an `RTX-4090`."""
    words = [word for word in name.replace("/", " ").split() if word not in BRANDS]
    if not words:
        return ""
    if words[0] not in FAMILIES:
        return words[0].partition("-")[0]
    kept: list[str] = []
    for word in words:
        if word in NO_TYPE or MEMORY.fullmatch(word) or word == "MIG":
            break
        kept.append(word)
    return "-".join(kept)


def restrict(machine: Machine, devices: list[Device]) -> list[Device]:
    """See Kind. Numbers, uuids or their beginnings, and MIG devices, which only their own names show."""
    text = machine.environ.get(VARIABLE)
    if text is None:
        return _told_apart(machine, devices)
    numbered = by_number(devices)
    mig: dict[str, Device] = {}

    def named(entry: str) -> Device | None:
        if entry.startswith("MIG-"):
            number = max((device.number for device in devices), default=-1) + 1 + len(mig)
            return mig.setdefault(entry, Device(number, shown=entry, type=_common_type(devices), uuid=entry)) if devices else None
        if entry.startswith("GPU-"):
            device = by_uuid(devices, entry)
            return device._replace(shown=entry) if device is not None else None
        return numbered(entry)

    return pick(VARIABLE, text, devices, named)


def _told_apart(machine: Machine, devices: list[Device]) -> list[Device]:
    """GPUs of different types by their uuids: CUDA numbers the fastest first unless it is told otherwise, and the driver does not."""
    in_one_order = machine.environ.get(ORDER_VARIABLE) == "PCI_BUS_ID" or len({device.type for device in devices}) < 2
    return devices if in_one_order else [device._replace(shown=device.uuid) for device in devices]


def _common_type(devices: Sequence[Device]) -> str:
    types = {device.type for device in devices}
    return types.pop() if len(types) == 1 else ""


def show(shown: Sequence[str], total: int) -> dict[str, str]:
    """See Kind. Empty hides all."""
    return {VARIABLE: ",".join(shown)}


KIND = Kind(
    name="nvidia",
    resource=GPU,
    variable=VARIABLE,
    find=find,
    restrict=restrict,
    show=show,
    owns=lambda type_: True,
    advice="run nvidia-smi, which says more; after an update of the driver the machine wants a restart",
)
