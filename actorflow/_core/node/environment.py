"""The environment a worker is born into: what the job asked for, and which devices it may see."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from actorflow._core.base.resources import GPU

CUDA_VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"


class WorkerEnv(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON in `RequestLease.env` and `ActorSpec.env`."""

    env_vars: dict[str, str] = {}
    working_dir: str | None = None


_decode = msgspec.json.Decoder(WorkerEnv).decode


def parse_env(text: str) -> WorkerEnv:
    """Return what `text` asks for; empty text asks for nothing. Raises ValueError."""
    try:
        return _decode(text) if text else WorkerEnv()
    except msgspec.DecodeError as error:
        raise ValueError(f"the environment {text!r} cannot be used: {error}") from error


def device_texts(devices: Mapping[str, list[int]]) -> tuple[str, ...]:
    """Devices as a part of a worker's key: `GPU=0`."""
    return tuple(f"{name}={number}" for name in sorted(devices) for number in devices[name])


def device_variables(devices: tuple[str, ...], node_has_gpus: bool) -> dict[str, str]:
    """The variables that show a worker its devices, and hide the others.

    On a node that manages GPUs a worker without one sees none: what was not asked for is not used by
    accident.
    """
    if not node_has_gpus:
        return {}
    numbers = [text.removeprefix(f"{GPU}=") for text in devices if text.startswith(f"{GPU}=")]
    return {CUDA_VISIBLE_DEVICES: ",".join(numbers)}
