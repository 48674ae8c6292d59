"""What a driver tells the node process it starts."""

from __future__ import annotations

import json
from typing import NamedTuple


class LocalClusterConfig(NamedTuple):
    """One argument, as JSON. `resources` in units of 1/10000.

    `devices`: how many of which the user said there are, 0 for none; of the others the node has what it finds.
    `ready_fd` is written to and closed when the cluster accepts drivers; `life_fd` is at its end when the driver is gone.
    """

    session_dir: str
    session_id: str
    driver_id: str
    resources: dict[str, int]
    arena_bytes: int
    ready_fd: int
    life_fd: int
    sys_path: list[str]
    prestart: int
    cancel_grace_s: float = 5.0
    memory_threshold: float = 0.95
    devices: dict[str, int] | None = None
    spill: str = ""
    """Where objects are spilled, as io/spill_target.py has it; empty: in the session directory."""

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(self._asdict())

    @classmethod
    def from_json(cls, text: str) -> LocalClusterConfig:
        """The inverse. Raises ValueError, TypeError."""
        return cls(**json.loads(text))
