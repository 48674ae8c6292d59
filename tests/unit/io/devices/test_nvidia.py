"""NVIDIA GPUs, without one: NVML is a fake, the driver's files are in a directory."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from actorflow._core.io.devices import nvidia
from actorflow._core.io.devices.registry import find_devices
from actorflow._core.io.devices.signs import SIGNS
from tests.unit.io.devices.fakes import NVIDIA_DRIVER, FakeNvml, NVMLError, machine, nvidia_files

A100, H100, T4 = "NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3", "Tesla T4"
FOUR = ((A100, "GPU-aa11"), (A100, "GPU-ab22"), (A100, "GPU-bb33"), (A100, "GPU-cc44"))


def texts(root: Path, nvml: FakeNvml, **environ: str) -> list[str]:
    found = find_devices(machine(root, NVIDIA_DRIVER, environ=environ, nvml=nvml))
    return [device.text for device in found["GPU"].devices] if found else []


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100 80GB PCIe", "A100"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 NVL", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A10G", "A10G"),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("Tesla P100-PCIE-16GB", "P100"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("NVIDIA GeForce RTX 3060 Ti", "RTX-3060-Ti"),
        ("NVIDIA GeForce RTX 4070 Laptop GPU", "RTX-4070-Laptop"),
        ("NVIDIA GeForce RTX 2080 Super with Max-Q Design", "RTX-2080-Super"),
        ("NVIDIA RTX A6000", "RTX-A6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX-6000-Ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000"),
        ("Quadro RTX 8000", "RTX-8000"),
        ("NVIDIA GeForce GTX 1080 Ti", "GTX-1080-Ti"),
        ("NVIDIA TITAN V", "TITAN-V"),
        ("NVIDIA", ""),
        ("", ""),
    ],
)
def test_a_type_is_read_from_a_name(name: str, type_: str) -> None:
    assert nvidia.accelerator_type(name) == type_


@pytest.mark.parametrize("as_bytes", [False, True])
def test_nvml_tells_types_memory_and_uuids(tmp_path: Path, as_bytes: bool) -> None:
    nvml = FakeNvml((H100, "GPU-1"), (H100, "GPU-2"), as_bytes=as_bytes)
    found = find_devices(machine(tmp_path, NVIDIA_DRIVER, nvml=nvml))["GPU"]
    assert found.kind is nvidia.KIND
    assert [(d.number, d.text, d.type, d.memory_bytes, d.uuid) for d in found.devices] == [
        (0, "0", "H100", 80 << 30, "GPU-1"),
        (1, "1", "H100", 80 << 30, "GPU-2"),
    ]
    assert nvml.open == 0, "it is closed again"


@pytest.mark.parametrize("sign", SIGNS["nvidia"])
def test_a_driver_is_seen_by_any_of_its_signs(tmp_path: Path, sign: str) -> None:
    assert len(find_devices(machine(tmp_path, {sign: ""}, nvml=FakeNvml((T4, "GPU-1"))))["GPU"].devices) == 1


def test_without_a_driver_nothing_is_imported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert find_devices(machine(tmp_path)) == {}
    assert not caplog.records, "an import would have failed, and been told"


def test_without_the_package_the_files_are_counted_and_it_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = find_devices(machine(tmp_path, nvidia_files(A100, A100)))["GPU"]
    assert [(d.number, d.type, d.uuid, d.memory_bytes) for d in found.devices] == [(0, "A100", "GPU-00", 0), (1, "A100", "GPU-11", 0)]
    [record] = caplog.records
    assert "nvidia-ml-py is not installed: 2 GPUs" in record.message
    assert "pip install 'actorflow[gpu]'" in record.message


def test_a_container_counts_what_it_may_open(tmp_path: Path) -> None:
    found = find_devices(machine(tmp_path, nvidia_files(A100, T4, H100, minors=(1, 2))))["GPU"]
    assert [(d.number, d.type) for d in found.devices] == [(0, "T4"), (1, "H100")]


def test_a_container_without_gpus_is_told_nothing_about_its_machines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert find_devices(machine(tmp_path, nvidia_files(A100, minors=()))) == {}
    assert not caplog.records


def test_without_files_of_the_driver_those_in_dev_are_counted(tmp_path: Path) -> None:
    files = {"/dev/nvidiactl": "", "/dev/nvidia0": "", "/dev/nvidia1": "", "/dev/nvidia-uvm": "", "/dev/nvidia-caps/x": ""}
    found = find_devices(machine(tmp_path, files))["GPU"]
    assert [(d.number, d.type) for d in found.devices] == [(0, ""), (1, "")]


@pytest.mark.parametrize("error", [NVMLError("Driver/library version mismatch"), OSError("no such library"), AttributeError("nvmlInit")])
def test_a_broken_driver_is_a_warning_that_says_what_to_do(tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    assert find_devices(machine(tmp_path, nvidia_files(A100), nvml=FakeNvml(broken=error))) == {}
    [record] = caplog.records
    assert str(error) in record.message
    assert "run nvidia-smi" in record.message


def test_a_driver_that_hangs_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "ANSWER_TIMEOUT_S", 0.01)
    never = threading.Event()
    nvml = FakeNvml((A100, "GPU-1"))
    monkeypatch.setattr(nvml, "nvmlInit", never.wait)
    try:
        assert find_devices(machine(tmp_path, NVIDIA_DRIVER, nvml=nvml)) == {}
    finally:
        never.set()
    assert "NVML did not answer within 0.01 s" in caplog.text


def test_a_gpu_that_does_not_answer_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert texts(tmp_path, FakeNvml(*FOUR, lost=(1,))) == ["0", "2", "3"]
    assert "GPU 1 does not answer (GPU is lost)" in caplog.text


@pytest.mark.parametrize(
    ("visible", "shown"),
    [
        ("2,3", ["2", "3"]),
        ("3,0", ["3", "0"]),
        (" 1 , 2 ", ["1", "2"]),
        ("1,1,2", ["1", "2"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,-1,2", ["0"]),
        ("GPU-bb33", ["GPU-bb33"]),
        ("GPU-cc,gpu-aa", ["GPU-cc"]),
        ("GPU-cc,GPU-aa", ["GPU-cc", "GPU-aa"]),
        ("MIG-1,MIG-2", ["MIG-1", "MIG-2"]),
    ],
)
def test_what_the_node_may_see_is_what_it_has(tmp_path: Path, visible: str, shown: list[str]) -> None:
    assert texts(tmp_path, FakeNvml(*FOUR), CUDA_VISIBLE_DEVICES=visible) == shown


@pytest.mark.parametrize("visible", ["0,7", "0,GPU-zz", "0,GPU-a", "0,first"], ids=str)
def test_an_entry_that_names_nothing_ends_the_list_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, visible: str) -> None:
    assert texts(tmp_path, FakeNvml(*FOUR), CUDA_VISIBLE_DEVICES=visible) == ["0"]
    assert f"{visible.partition(',')[2]!r} names no device of this node, which has 4" in caplog.text


def test_uuids_and_mig_devices_have_numbers_of_their_own(tmp_path: Path) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "GPU-cc44,MIG-1,MIG-2"}
    found = find_devices(machine(tmp_path, NVIDIA_DRIVER, environ=environ, nvml=FakeNvml(*FOUR)))["GPU"]
    assert [(d.number, d.text, d.type) for d in found.devices] == [(3, "GPU-cc44", "A100"), (4, "MIG-1", "A100"), (5, "MIG-2", "A100")]


def test_gpus_of_different_types_go_by_their_uuids_as_cuda_numbers_them_otherwise(tmp_path: Path) -> None:
    nvml = FakeNvml((T4, "GPU-slow"), (A100, "GPU-fast"))
    assert texts(tmp_path, nvml) == ["GPU-slow", "GPU-fast"]
    assert texts(tmp_path, nvml, CUDA_DEVICE_ORDER="PCI_BUS_ID") == ["0", "1"]
