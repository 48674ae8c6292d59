"""Who has an owner's objects."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from actorflow._core.protocol.messages import CopyHere, Stored
from actorflow._core.worker.copies import HOLDERS_NAMED_MAX, Copies


def test_of_thousands_of_copies_few_are_named_and_the_near_one_always() -> None:
    core: Any = SimpleNamespace(node_id="me")
    copies = Copies(core, store=None)  # type: ignore[arg-type]  # asked only about objects of this node
    peer: Any = None
    stored = Stored("home", 1, 0, 1 << 20, b"", [])
    copies.owns(stored)
    assert copies.holders(stored) == ["home"]
    nodes = ["me", *(f"n{number}" for number in range(2_000))]
    for node in nodes:
        copies.on_copy(peer, CopyHere(owner="o", home="home", extent=1, node=node, here=True))
    named = copies.holders(stored)
    assert named == ["home", "me", *nodes[: -HOLDERS_NAMED_MAX - 1 : -1]]
