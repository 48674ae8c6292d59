"""What a head is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field

from actorflow._core.policy.actors import ACTORS_MAX, PLACE_TIMEOUT_S
from actorflow._core.policy.checkpoints import CHECKPOINT_BYTES_MAX, CHECKPOINTS_BYTES_MAX
from actorflow._core.policy.graveyard import DEAD_ACTORS_MAX, DEAD_BYTES_MAX


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """`address` is where the head listens; the rest has good defaults."""

    address: str
    process_id: str = ""
    """Empty: the head draws its own."""
    pid: int = 0
    info: dict[str, str] = field(default_factory=dict)
    """Said to every peer in `Welcome.info`, besides `head`, the address."""
    actors_max: int = ACTORS_MAX
    """Living actors; one more is refused."""
    dead_actors_max: int = DEAD_ACTORS_MAX
    dead_bytes_max: int = DEAD_BYTES_MAX
    """Dead actors that are remembered; beyond either bound the oldest are forgotten."""
    checkpoint_bytes_max: int = CHECKPOINT_BYTES_MAX
    checkpoints_bytes_max: int = CHECKPOINTS_BYTES_MAX
    """One checkpoint, and all together; beyond either the checkpoint is refused."""
    place_timeout_s: float = PLACE_TIMEOUT_S
    """How long an actor that has to move, or that comes before the first node, waits for a node."""
    state_queries_max: int = 256
    """State queries under way at the nodes; one more is refused."""
