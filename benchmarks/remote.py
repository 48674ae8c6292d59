"""Starts a benchmark program in its own environment and talks to it in JSON lines.

A program gets requests on stdin and answers on a stdout of its own; whatever else it or its libraries print
goes to a log file, whose end is shown when the program fails. Everything it started ends with it, and what
does not is named.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import processes

ROOT = Path(__file__).resolve().parent.parent
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
#: How long a system may take to leave on its own before what is left of it is killed.
LEAVE_GRACE_S = 20.0


class ProgramFailed(RuntimeError):
    """The program reported an error, died, or did not answer in time."""


class Program:
    """One benchmark program and every process below it."""

    def __init__(self, command: Sequence[str | Path], *, log: Path) -> None:
        self.name = " ".join(Path(word).name for word in command[1:])
        self._log = log
        self._pending = b""
        with log.open("ab") as sink:
            #: On the clock of `time.monotonic`, which all processes of a machine share.
            self.started_at = time.monotonic()
            self._process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"},
                # A session of its own: Ctrl-C reaches the conductor only, which ends all its programs in
                # order. start_new_session=True, preexec_fn=processes.become_subreaper,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def tree(self) -> list[int]:
        """The program's process first, then everything below it."""
        return processes.tree(self.pid)

    def ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failed("died") from None
        return self.listen(timeout_s)

    def listen(self, timeout_s: float) -> dict[str, Any]:
        """Wait for the next line of the program."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._pending:
            if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise self._failed(f"did not answer within {timeout_s:.0f} s")
            chunk = os.read(descriptor, 65536)
            if not chunk:
                raise self._failed("died")
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ProgramFailed(f"{self.name}: {answer['error']}")
        return answer

    def stop(self) -> list[str]:
        """End the program and all below it; returns what it left behind and had to be killed."""
        born = {pid: processes.start_time(pid) for pid in self.tree()}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()  # end of file is the word for "leave in order"
        except BrokenPipeError:
            pass
        left = processes.end(born, LEAVE_GRACE_S)
        self._process.wait()
        self._process.stdout.close()
        return left

    def _failed(self, what: str) -> ProgramFailed:
        tail = self._log.read_text(errors="replace")[-3000:]
        return ProgramFailed(f"{self.name} {what}; the end of its log:\n{tail}")


def python_of(system: str) -> str | Path:
    """The interpreter a system runs in: the peers have an environment of their own (`make peers`)."""
    return PEERS_PYTHON if system in ("ray", "xoscar") else sys.executable
