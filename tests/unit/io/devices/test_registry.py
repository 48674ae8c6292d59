"""All kinds together, simulated devices, and what a node makes of what was found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from actorflow._core.base.errors import OptionError
from actorflow._core.base.resources import DEVICE_NAMES, UNIT
from actorflow._core.boot.node_devices import NodeDevices, own_devices
from actorflow._core.io.devices import amd, nvidia, registry, simulated, tpu
from actorflow._core.io.devices.registry import KINDS, Display, default_kind, find_devices
from actorflow._core.io.devices.signs import any_sign
from actorflow._core.node.config import NodeConfig
from actorflow._core.node.environment import device_texts, device_variables
from tests.unit.io.devices.fakes import NVIDIA_DRIVER, FakeNvml, kfd_node, machine

TWO_A100 = FakeNvml(("NVIDIA A100-SXM4-80GB", "GPU-1"), ("NVIDIA A100-SXM4-80GB", "GPU-2"))


def own(root: Path, text: str | None, given: dict[str, int] | None = None, **environ: str) -> NodeDevices:
    variables = environ | ({simulated.VARIABLE: text} if text is not None else {})
    return own_devices({"CPU": UNIT}, given, machine(root, NVIDIA_DRIVER, environ=variables, nvml=TWO_A100))


# Kinds ----------------------------------------------------------------------------------------------------------------


def test_every_resource_that_is_a_device_has_a_kind() -> None:
    assert {kind.resource for kind in KINDS} == set(DEVICE_NAMES)
    assert [default_kind(name) for name in DEVICE_NAMES] == [nvidia.KIND, tpu.KIND]
    with pytest.raises(KeyError):
        default_kind("disk")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_says_in_its_variable_which_devices_a_worker_has(kind: Any) -> None:
    assert kind.variable in kind.show([], 4)
    assert kind.show([], 4)[kind.variable] == ""
    assert kind.show(["1", "3"], 4)[kind.variable] == "1,3"


def test_a_kind_that_fails_takes_no_other_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(machine: object) -> Any:
        raise PermissionError("/dev/kfd")

    monkeypatch.setattr(registry, "KINDS", (amd.KIND._replace(find=fail), nvidia.KIND, tpu.KIND))
    found = find_devices(machine(tmp_path, NVIDIA_DRIVER, nvml=TWO_A100))
    assert [device.number for device in found["GPU"].devices] == [0, 1]
    assert "the amd devices of this node (GPU) could not be found" in caplog.text
    assert "rocminfo" in caplog.text


def test_two_kinds_of_one_resource_are_told_and_the_first_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    here = machine(tmp_path, NVIDIA_DRIVER | kfd_node(1), nvml=TWO_A100)
    assert find_devices(here)["GPU"].kind is nvidia.KIND
    assert "GPU devices of the kinds nvidia and amd: the first are used, the other 1 are not" in caplog.text


def test_a_variable_without_devices_is_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert find_devices(machine(tmp_path, environ={"CUDA_VISIBLE_DEVICES": "0", "TPU_VISIBLE_CHIPS": "0"})) == {}
    assert not caplog.records


@pytest.mark.parametrize(
    "files",
    [
        NVIDIA_DRIVER,
        kfd_node(1),
        {"/dev/accel3": ""},
        {"/dev/vfio/0": "", "/sys/bus/pci/devices/a/vendor": "0x1ae0", "/sys/bus/pci/devices/a/device": "0x0063"},
    ],
    ids=["nvidia", "amd", "tpu", "vfio"],
)
def test_what_a_kind_finds_has_left_a_sign(tmp_path: Path, files: dict[str, str]) -> None:
    assert not any_sign(str(tmp_path))
    here = machine(tmp_path, files, nvml=TWO_A100)
    assert any_sign(str(tmp_path))
    assert own_devices({}, {}, here).ids


def test_a_node_without_a_sign_imports_no_kind(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from actorflow._core.boot import node_devices, node_process
        from actorflow._core.node import node
        node_devices.any_sign = lambda root: False
        node_devices.own_devices({}, {"GPU": 0})
        loaded = [name for name in sys.modules if name.startswith("actorflow._core.io.devices.")]
        assert loaded == ["actorflow._core.io.devices.signs"], loaded
    """
    environ = {name: value for name, value in os.environ.items() if name != simulated.VARIABLE}
    subprocess.run([sys.executable, "-c", code], check=True, env=environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, timeout=30)


# Simulated ------------------------------------------------------------------------------------------------------------


def test_simulated_devices_take_the_place_of_real_ones(tmp_path: Path) -> None:
    here = own(tmp_path, "GPU:3:H100, tpu:8:v5e")
    assert here.ids == {"GPU": [0, 1, 2], "TPU": list(range(8))}
    assert here.resources == {"CPU": UNIT, "GPU": 3 * UNIT, "accelerator_type:H100": UNIT, "TPU": 8 * UNIT, "accelerator_type:v5e": UNIT}
    assert here.labels == {"accelerator_type": "v5e"}
    assert [here.displays[name].kind for name in ("GPU", "TPU")] == [nvidia.KIND, tpu.KIND]


@pytest.mark.parametrize("text", ["", " ", "GPU:0"])
def test_no_simulated_devices_are_no_devices(tmp_path: Path, text: str) -> None:
    assert own(tmp_path, text) == NodeDevices({"CPU": UNIT}, {}, {}, {}, {})


def test_a_type_says_whose_variables_are_set(tmp_path: Path) -> None:
    assert own(tmp_path, "GPU:1:MI300X").displays["GPU"].kind is amd.KIND
    assert own(tmp_path, "GPU:1:B200").displays["GPU"].kind is nvidia.KIND
    assert own(tmp_path, "GPU:1").displays["GPU"].kind is nvidia.KIND


def test_groups_of_one_resource_are_numbered_on(tmp_path: Path) -> None:
    here = own(tmp_path, "GPU:1:A100,GPU:2:T4")
    assert here.types["GPU"] == {0: "A100", 1: "T4", 2: "T4"}
    assert here.labels == {"accelerator_type": "T4"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("GPU", "'GPU' has 1 parts: an entry is NAME:COUNT or NAME:COUNT:TYPE"),
        ("GPU:1:A100:x", "has 4 parts"),
        ("GPU:many", "'many' in 'GPU:many' is no count: a whole number from 0 to 1024 is"),
        ("GPU:-1", "'-1' in"),
        ("GPU:1.5", "'1.5' in"),
        ("GPU:2000", "'2000' in"),
        ("FPGA:2", "'FPGA' in 'FPGA:2' is no kind of device: known are GPU, TPU"),
        ("GPU:1:", "'' in 'GPU:1:' is no type"),
        ("GPU:1:A 100", "'A 100' in"),
        ("GPU:1,,TPU:1", "has an empty entry"),
        ("GPU:1,", "has an empty entry"),
        ("GPU:1:A100,GPU:1:MI300X", "mixes GPU devices of the kinds nvidia and amd"),
    ],
)
def test_bad_syntax_says_what_would_be_right(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(OptionError) as caught:
        own(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"ACTORFLOW_SIMULATED_DEVICES={text!r} ")
    assert words in message
    if "mixes" not in words:
        assert message.endswith('Write it as ACTORFLOW_SIMULATED_DEVICES="GPU:4:A100,TPU:8:v5e", or unset it.')


def test_the_node_may_see_a_part_of_simulated_devices_too(tmp_path: Path) -> None:
    assert own(tmp_path, "GPU:4:A100", CUDA_VISIBLE_DEVICES="1,3").ids == {"GPU": [1, 3]}


# What a node says -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "environ", "ids", "types"),
    [
        ({}, {}, [0, 1, 2, 3], 4),
        ({"GPU": 2}, {}, [0, 1], 2),
        ({"GPU": 2}, {"CUDA_VISIBLE_DEVICES": "3,1,0"}, [3, 1], 2),
        ({"GPU": 6}, {}, [0, 1, 2, 3, 4, 5], 4),
        ({"GPU": 3}, {"CUDA_VISIBLE_DEVICES": "2"}, [2, 0, 1], 1),
        ({"GPU": 2}, {"CUDA_VISIBLE_DEVICES": ""}, [0, 1], 0),
    ],
)
def test_the_number_that_the_user_gives_wins(
    tmp_path: Path, given: dict[str, int], environ: dict[str, str], ids: list[int], types: int
) -> None:
    here = own(tmp_path, "GPU:4:A100", given, **environ)
    assert here.ids == {"GPU": ids}
    assert here.resources["GPU"] == len(ids) * UNIT
    assert len(here.types["GPU"]) == types
    assert ("accelerator_type:A100" in here.resources) == bool(types)


def test_a_given_number_without_devices_goes_by_the_nodes_variable(tmp_path: Path) -> None:
    assert own(tmp_path, "", {"GPU": 2}, CUDA_VISIBLE_DEVICES="5,7").ids == {"GPU": [5, 7]}
    assert own(tmp_path, "", {"GPU": 2, "TPU": 1}).ids == {"GPU": [0, 1], "TPU": [0]}


def test_zero_hides_devices_and_asks_no_driver(tmp_path: Path) -> None:
    assert own(tmp_path, "GPU:4:A100,TPU:1:v4", {"GPU": 0}).ids == {"TPU": [0]}
    nvml = FakeNvml(broken=AssertionError("it was asked"))
    assert own_devices({}, {"GPU": 0}, machine(tmp_path, NVIDIA_DRIVER, nvml=nvml)) == NodeDevices({}, {}, {}, {}, {})


def test_an_accelerator_type_that_the_user_gave_stays(tmp_path: Path) -> None:
    here = machine(tmp_path, environ={simulated.VARIABLE: "GPU:1:A100"})
    assert own_devices({"accelerator_type:A100": 5}, {}, here).resources["accelerator_type:A100"] == 5


# What a worker is told ------------------------------------------------------------------------------------------------


def displays(**resources: int) -> dict[str, Display]:
    return NodeConfig("", "", {name: number * UNIT for name, number in resources.items()}, str).displays()


def test_a_node_without_devices_says_nothing_to_workers() -> None:
    assert device_variables((), displays(CPU=2, disk=1)) == {}


def test_a_worker_sees_its_own_and_nothing_of_the_kinds_it_did_not_ask_for() -> None:
    both = displays(GPU=2, TPU=4)
    assert device_variables((), both) == {"CUDA_VISIBLE_DEVICES": "", "TPU_VISIBLE_CHIPS": ""}
    assert device_variables(device_texts({"GPU": [1]}), both) == {"CUDA_VISIBLE_DEVICES": "1", "TPU_VISIBLE_CHIPS": ""}
    shown = device_variables(device_texts({"TPU": [0, 1, 2, 3], "GPU": [0, 1]}), both)
    assert shown == {"CUDA_VISIBLE_DEVICES": "0,1", "TPU_VISIBLE_CHIPS": "0,1,2,3"}


def test_devices_with_names_of_their_own_are_shown_by_these() -> None:
    named = {"GPU": Display(nvidia.KIND, 2, {3: "GPU-cc44"})}
    assert device_variables(("GPU=3",), named) == {"CUDA_VISIBLE_DEVICES": "GPU-cc44"}
    assert device_variables(("GPU=3", "GPU=5"), named) == {"CUDA_VISIBLE_DEVICES": "GPU-cc44,5"}


def test_devices_without_a_kind_are_no_variables() -> None:
    config = NodeConfig("", "", {"disk": 2 * UNIT}, str, device_ids={"disk": [0, 1]})
    assert config.displays() == {}
    assert config.devices() == {"disk": [0, 1]}
