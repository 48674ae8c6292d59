"""The environment a worker is born into: what the job asked for, and which devices it may see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from actorflow._core.io.devices.registry import Display


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


def device_variables(devices: tuple[str, ...], displays: Mapping[str, Display]) -> dict[str, str]:
    """The variables that show a worker its devices, and hide the others of every kind that the node has (DV-1)."""
    numbers: dict[str, list[int]] = {}
    for text in devices:
        name, _, number = text.rpartition("=")
        numbers.setdefault(name, []).append(int(number))
    variables: dict[str, str] = {}
    for name, display in displays.items():
        variables |= display.variables(numbers.get(name, ()))
    return variables
