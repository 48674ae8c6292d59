"""The examples run as they are."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.local_only("starts a cluster of its own")
async def test_a_cluster_loses_a_node_and_its_head_and_the_answer_is_right() -> None:
    example = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", str(ROOT / "examples" / "survive.py"), "--files", "100",
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(60):
        shown, _ = await example.communicate()
    text = shown.decode()
    assert example.returncode == 0, text
    assert "the head is killed" in text
    assert text.endswith("as counted in one process\n"), text
