"""AMD GPUs, without one: the topology of the kernel driver is in a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from actorflow._core.io.devices import amd
from actorflow._core.io.devices.registry import Display, find_devices
from tests.unit.io.devices.fakes import kfd_node, machine

CPU = kfd_node(0, simds=0, device=0)
FOUR = CPU | kfd_node(1, unique=0xAA) | kfd_node(2, unique=0xBB) | kfd_node(3, unique=0xCC) | kfd_node(10, unique=0xDD)


def numbers(root: Path, **environ: str) -> list[int]:
    found = find_devices(machine(root, FOUR, environ=environ))
    return [device.number for device in found["GPU"].devices] if found else []


def test_the_topology_tells_types_memory_and_uuids(tmp_path: Path) -> None:
    files = CPU | kfd_node(1, unique=0xAA) | kfd_node(2, device=0x740F, memory_bytes=64 << 30) | kfd_node(3, device=0x1)
    found = find_devices(machine(tmp_path, files))["GPU"]
    assert found.kind is amd.KIND
    assert [(d.number, d.type, d.memory_bytes, d.uuid) for d in found.devices] == [
        (0, "MI300X", 192 << 30, "GPU-00000000000000aa"),
        (1, "MI210", 64 << 30, ""),
        (2, "", 192 << 30, ""),
    ]


def test_a_node_that_may_not_be_read_is_somebody_elses(tmp_path: Path) -> None:
    files = FOUR | {"/sys/class/kfd/kfd/topology/nodes/2/properties": "", "/sys/class/kfd/kfd/topology/nodes/x/properties": "simd_count 4"}
    assert len(find_devices(machine(tmp_path, files))["GPU"].devices) == 3


@pytest.mark.parametrize(
    ("environ", "left"),
    [
        ({}, [0, 1, 2, 3]),
        ({"ROCR_VISIBLE_DEVICES": "2,3"}, [2, 3]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-00000000000000CC,0"}, [2, 0]),
        ({"ROCR_VISIBLE_DEVICES": ""}, []),
        ({"HIP_VISIBLE_DEVICES": "1,3"}, [1, 3]),
        ({"HIP_VISIBLE_DEVICES": ""}, [0, 1, 2, 3]),
        ({"HIP_VISIBLE_DEVICES": "-1"}, []),
        ({"CUDA_VISIBLE_DEVICES": "1"}, [1]),
        ({"HIP_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "1"}, [0]),
        ({"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "1"}, [3]),
    ],
)
def test_what_the_node_may_see_is_what_it_has(tmp_path: Path, environ: dict[str, str], left: list[int]) -> None:
    assert numbers(tmp_path, **environ) == left


def test_a_worker_may_use_all_that_rocr_shows_it() -> None:
    display = Display(amd.KIND, 4)
    assert display.variables([2, 3]) == {"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "0,1"}
    assert display.variables([]) == {"ROCR_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
