"""A machine made of files in a directory, and NVML without a driver."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actorflow._core.io.devices.kinds import Machine


class NVMLError(Exception):
    """As pynvml's."""


class FakeNvml:
    """pynvml with these GPUs: (name, uuid). `broken`: what `nvmlInit` raises; `lost`: numbers that do not answer."""

    NVMLError = NVMLError

    def __init__(self, *gpus: tuple[str, str], broken: Exception | None = None, lost: tuple[int, ...] = (), as_bytes: bool = False) -> None:
        self.gpus = gpus
        self.broken = broken
        self.lost = lost
        self.as_bytes = as_bytes
        self.open = 0

    def nvmlInit(self) -> None:
        if self.broken is not None:
            raise self.broken
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        if number in self.lost:
            raise NVMLError("GPU is lost")
        return number

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:
        return self._text(self.gpus[handle][0])

    def nvmlDeviceGetUUID(self, handle: int) -> str | bytes:
        return self._text(self.gpus[handle][1])

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return type("Memory", (), {"total": 80 << 30})

    def _text(self, text: str) -> str | bytes:
        return text.encode() if self.as_bytes else text


def machine(root: Path, files: Mapping[str, str] | None = None, *, environ: Mapping[str, str] | None = None, nvml: Any = None) -> Machine:
    """A machine with these files, and pynvml when there is one; nothing else can be imported."""
    for path, text in (files or {}).items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def load(name: str) -> Any:
        assert name == "pynvml"
        if nvml is None:
            raise ImportError(name)
        return nvml

    return Machine(str(root), environ or {}, load)


NVIDIA_DRIVER = {"/dev/nvidiactl": "", "/proc/driver/nvidia/version": "NVRM"}


def nvidia_files(*models: str, minors: tuple[int, ...] | None = None) -> dict[str, str]:
    """What the driver shows of these GPUs; in /dev only those with these minor numbers."""
    files = dict(NVIDIA_DRIVER)
    for number, model in enumerate(models):
        text = f"Model: \t\t {model}\nIRQ:   \t\t 42\nGPU UUID: \t GPU-{number}{number}\nBus Type: \t PCIe\nDevice Minor: \t {number}\n"
        files[f"/proc/driver/nvidia/gpus/0000:{number:02x}:00.0/information"] = text
    for minor in range(len(models)) if minors is None else minors:
        files[f"/dev/nvidia{minor}"] = ""
    return files


def kfd_node(number: int, *, simds: int = 304, device: int = 0x74A1, unique: int = 0, memory_bytes: int = 192 << 30) -> dict[str, str]:
    """A node of KFD's topology; without SIMDs it is a CPU."""
    base = f"/sys/class/kfd/kfd/topology/nodes/{number}"
    vendor = 0x1002 if simds else 0
    properties = f"cpu_cores_count {0 if simds else 64}\nsimd_count {simds}\nvendor_id {vendor}\ndevice_id {device}\nunique_id {unique}\n"
    return {f"{base}/properties": properties, f"{base}/mem_banks/0/properties": f"heap_type 1\nsize_in_bytes {memory_bytes}\n"}
