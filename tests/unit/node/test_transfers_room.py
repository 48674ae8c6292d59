"""The rooms for objects of other nodes are made when they are needed: a cluster of one node never pays for them."""

import subprocess
import sys

from actorflow._core.node.config import NodeConfig
from actorflow._core.policy.transfer_records import CHUNK_BYTES

ROOMS = [
    *("node.transfers", "node.pulling", "node.serving", "node.owners", "node.links"),
    *("policy.pulls", "policy.uploads", "io.bulk", "worker.copies"),
]


def test_a_process_that_needs_none_of_it_imports_none_of_it() -> None:
    code = f"""
import sys
import actorflow._core.node.node, actorflow._core.head.head, actorflow._core.worker.host, actorflow._core.boot.worker_main
print([room for room in {ROOMS} if "actorflow._core." + room in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_default_of_the_node_is_that_of_the_books() -> None:
    config = NodeConfig(address="", head_address="", resources={}, worker_address=str)
    assert config.transfer_chunk_bytes == CHUNK_BYTES
