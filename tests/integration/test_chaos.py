"""A few seconds of chaos on real processes: something of each kind is done, and nobody notices more than they may."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.local_only("it starts and kills nodes of its own on this machine")

ROOT = Path(__file__).resolve().parents[2]
SHORT = [
    "--seed", "5", "--seconds", "6", "--kill-every", "1.2", "--node-every", "3", "--head-every", "4", "--stop-every", "2",
    "--reset-every", "2", "--partition-every", "4", "--lasting", "0.5", "--hang", "30",
]  # fmt: skip


def chaos(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "actorflow.testing.chaos", *arguments],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=58, check=False,
    )  # fmt: skip


def test_a_short_run_of_everything() -> None:
    done = chaos(*SHORT, "--json")
    figures = json.loads(done.stdout)
    assert done.returncode == 0, (figures, done.stderr)
    assert figures["ok"], figures
    assert figures["command"].startswith("python -m actorflow.testing.chaos --seed 5 --seconds 6")
    assert {"kill worker", "kill node", "kill head", "stop worker", "reset", "partition"} <= figures["faults"].keys(), done.stderr
    assert {"task again", "stream", "objects", "group", "actor again", "actor once", "kept", "named"} <= figures["calls"].keys()
    assert figures["recovery"]["all kills"]["times"], "somebody was hit, and came back"


def test_what_cannot_be_had_says_why() -> None:
    done = chaos("--nodes", "1", "--partition-every", "3")
    assert done.returncode == 2
    assert "there is no cable to cut" in done.stderr
