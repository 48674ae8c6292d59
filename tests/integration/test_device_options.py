"""Which devices a cluster offers: by its options, and by the variables that its driver was started with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import actorflow as af

pytestmark = pytest.mark.local_only("what a local cluster takes for its devices")

SIMULATED = "ACTORFLOW_SIMULATED_DEVICES"
VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS")


@af.remote
def seen() -> dict[str, str]:
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def offers() -> dict[str, float]:
    totals = af.sync(af.cluster_resources())
    return {name: amount for name, amount in totals.items() if name not in ("CPU", "memory")}


@pytest.mark.parametrize(
    ("options", "environ", "offered", "shown"),
    [
        ({}, "GPU:2:A100", {"GPU": 2, "accelerator_type:A100": 1}, {"CUDA_VISIBLE_DEVICES": "0"}),
        ({"num_gpus": 3}, "GPU:2:A100", {"GPU": 3, "accelerator_type:A100": 1}, {"CUDA_VISIBLE_DEVICES": "0"}),
        ({}, "GPU:2:MI300X", {"GPU": 2, "accelerator_type:MI300X": 1}, {"ROCR_VISIBLE_DEVICES": "0", "HIP_VISIBLE_DEVICES": "0"}),
        ({"num_gpus": 1, "resources": {"TPU": 0}}, "TPU:4", {"GPU": 1}, {"CUDA_VISIBLE_DEVICES": "0"}),
        ({"mode": "in_process"}, "GPU:2:A100", {"GPU": 2, "accelerator_type:A100": 1}, None),
    ],
    ids=str,
)
def test_a_cluster_offers_what_is_there_or_what_is_said(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], environ: str, offered: dict[str, float], shown: dict[str, str] | None
) -> None:
    monkeypatch.setenv(SIMULATED, environ)
    with af.init(num_cpus=1, log_to_driver=False, **options):
        assert offers() == offered
        if shown is not None:
            assert af.sync(seen.options(num_gpus=1)()) == shown


def test_zero_hides_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIMULATED, "GPU:2:A100")
    with af.init(num_cpus=1, num_gpus=0, log_to_driver=False):
        assert offers() == {}
        assert af.sync(seen()) == {}, "nothing is managed here, so nothing is hidden"


def test_a_driver_that_sees_some_devices_has_a_cluster_of_these(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIMULATED, "GPU:4:A100")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,2")
    with af.init(num_cpus=1, log_to_driver=False):
        assert offers()["GPU"] == 2
        assert af.sync(seen())["CUDA_VISIBLE_DEVICES"] == ""
        assert af.sync(seen.options(num_gpus=2)())["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_bad_syntax_is_told_before_anything_is_started(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv(SIMULATED, "GPU:four")
    with pytest.raises(af.OptionError, match="'four' in 'GPU:four' is no count"):
        af.init(num_cpus=1)
    assert not af.is_initialized()


@pytest.mark.parametrize(
    ("options", "text"), [({"num_gpus": 1.5}, "num_gpus=1.5"), ({"resources": {"TPU": 0.5}}, "resources={'TPU': 0.5}")]
)
def test_a_machine_has_whole_devices(options: dict[str, Any], text: str) -> None:
    with pytest.raises(af.OptionError) as caught:
        af.init(num_cpus=1, **options)
    assert str(caught.value).startswith(f"af.init({text}) is no number of devices")
