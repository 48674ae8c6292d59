"""TPUs, without one: the devices of the machine are in a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from actorflow._core.io.devices import tpu
from actorflow._core.io.devices.registry import Display, find_devices
from tests.unit.io.devices.fakes import machine

VFIO = {f"/dev/vfio/{name}": "" for name in ("vfio", "5", "6", "7", "8")}


def bus(number: int, *, vendor: str = "0x1ae0", device: str = "0x0063") -> dict[str, str]:
    base = f"/sys/bus/pci/devices/0000:00:{number:02x}.0"
    return {f"{base}/vendor": f"{vendor}\n", f"{base}/device": f"{device}\n"}


FOUR_V5E = VFIO | bus(1) | bus(2) | bus(3) | bus(4) | bus(5, vendor="0x8086")


def chips(root: Path, files: dict[str, str], **environ: str) -> list[tuple[int, str]]:
    found = find_devices(machine(root, files, environ=environ))
    return [(device.number, device.type) for device in found["TPU"].devices] if found else []


@pytest.mark.parametrize(
    ("files", "environ", "found"),
    [
        ({"/dev/accel0": "", "/dev/accel1": ""}, {}, [(0, ""), (1, "")]),
        ({"/dev/accel0": "", "/dev/accel1": ""}, {"TPU_ACCELERATOR_TYPE": "v4-16"}, [(0, "v4"), (1, "v4")]),
        ({"/dev/accel0": ""} | bus(1, device="0x005e"), {}, [(0, "v4")]),
        ({"/dev/accel/accel0": ""}, {}, []),
        (FOUR_V5E, {}, [(0, "v5e"), (1, "v5e"), (2, "v5e"), (3, "v5e")]),
        (VFIO | bus(1, device="0x006f"), {}, [(0, "v6e")]),
        (VFIO, {"TPU_ACCELERATOR_TYPE": "v5litepod-4"}, [(0, "v5e"), (1, "v5e"), (2, "v5e"), (3, "v5e")]),
        (VFIO, {}, []),
        (VFIO | bus(1, vendor="0x10de", device="0x2330"), {}, []),
        (VFIO | bus(1, device="0x9999"), {}, []),
        (FOUR_V5E, {"TPU_VISIBLE_CHIPS": "1,3"}, [(1, "v5e"), (3, "v5e")]),
        (FOUR_V5E, {"TPU_VISIBLE_CHIPS": ""}, []),
        ({"/dev/vfio/vfio": ""} | bus(1), {}, []),
    ],
)
def test_chips_are_counted_and_told_from_others(
    tmp_path: Path, files: dict[str, str], environ: dict[str, str], found: list[tuple[int, str]]
) -> None:
    assert chips(tmp_path, files, **environ) == found


@pytest.mark.parametrize(
    ("numbers", "variables"),
    [
        ([2], {"TPU_VISIBLE_CHIPS": "2", "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}),
        ([0, 1], {"TPU_VISIBLE_CHIPS": "0,1", "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,2,1", "TPU_PROCESS_BOUNDS": "1,1,1"}),
        ([0, 1, 2], {"TPU_VISIBLE_CHIPS": "0,1,2"}),
        ([0, 1, 2, 3], {"TPU_VISIBLE_CHIPS": "0,1,2,3"}),
        ([], {"TPU_VISIBLE_CHIPS": ""}),
    ],
)
def test_who_has_a_part_of_the_chips_is_told_how_they_lie(numbers: list[int], variables: dict[str, str]) -> None:
    assert Display(tpu.KIND, 4).variables(numbers) == variables
