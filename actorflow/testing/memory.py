"""The memory of a simulated machine, as its node sees it: as short as a test says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorflow._core.policy.memory_watch import MemoryUse

if TYPE_CHECKING:
    from actorflow.testing.host import Host

LIMIT_BYTES = 8 << 30
USED_BYTES = 2 << 30
WORKER_BYTES = 128 << 20
"""What comes free with a worker: enough to be worth its end."""


class SimMemory:
    """The MemoryGauge of a simulated node. Nobody looks unless `NodeConfig.memory_threshold` is set."""

    def __init__(self, host: Host, limit_bytes: int = LIMIT_BYTES) -> None:
        self.host = host
        self.limit_bytes = limit_bytes
        self.used_bytes = USED_BYTES
        self.worker_bytes = WORKER_BYTES
        self.kills = 0

    def short(self, free_bytes: int = 0) -> None:
        """Others have taken all but `free_bytes`, until `enough`."""
        self.host.world.note(self.host.name, "memory is short")
        self.used_bytes = self.limit_bytes - free_bytes

    def enough(self) -> None:
        """They have given it back."""
        self.used_bytes = USED_BYTES

    def use(self) -> MemoryUse | None:
        """See node/memory.py."""
        return MemoryUse(self.used_bytes, self.limit_bytes, f"on the machine of {self.host.name}")

    def private_bytes(self, pid: int) -> int:
        """See node/memory.py."""
        return self.worker_bytes

    def system_kills(self) -> int:
        """See node/memory.py."""
        return self.kills
