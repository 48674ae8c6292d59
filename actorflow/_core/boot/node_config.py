"""What a driver tells the node process it starts."""

from __future__ import annotations

import msgspec


class LocalClusterConfig(msgspec.Struct, frozen=True):
    """One argument, as JSON. `resources` in units of 1/10000; `ready_fd` is written to and closed when the cluster accepts drivers."""

    session_dir: str
    session_id: str
    driver_id: str
    resources: dict[str, int]
    arena_bytes: int
    ready_fd: int
    sys_path: list[str]
    prestart: int = 1
    cancel_grace_s: float = 5.0

    def to_json(self) -> str:
        """For the command line."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> LocalClusterConfig:
        """The inverse. Raises msgspec.ValidationError."""
        return msgspec.json.decode(text, type=cls)
