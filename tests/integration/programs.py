"""Programs of their own: a driver in a subprocess, to be watched, signalled and killed from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.integration.leaks import until

ROOT = Path(__file__).resolve().parents[2]
HEADER = "import asyncio, os, signal, sys, time\nimport actorflow as af\n"


class Program:
    """One running driver. Its output goes to files, so that no child of it can hold a pipe open."""

    def __init__(self, directory: Path, source: str, number: int, env: dict[str, str], argv: tuple[str, ...]) -> None:
        self._out = directory / f"program{number}.out"
        self._err = directory / f"program{number}.err"
        script = directory / f"program{number}.py"
        script.write_text(HEADER + textwrap.dedent(source))
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", str(script), *argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def out(self) -> str:
        return self._out.read_text()

    def err(self) -> str:
        return self._err.read_text()

    def says(self, text: str, timeout_s: float = 20.0) -> None:
        """Wait until the program has printed a line with this, to its end: unbuffered output comes in pieces."""
        assert until(lambda: text in self.out().rpartition("\n")[0] or self.process.poll() is not None, timeout_s), self.told()
        assert text in self.out(), self.told()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ends(self, timeout_s: float = 30.0) -> int:
        """Wait for its end; the exit code, or minus the signal."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the program did not end within {timeout_s:g} s\n{self.told()}") from None

    def told(self) -> str:
        return f"--- stdout\n{self.out()}\n--- stderr\n{self.err()}"


class Programs:
    """Starts programs, and ends those that a failed test has left."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._all: list[Program] = []

    def start(self, source: str, *argv: str, env: dict[str, str] | None = None) -> Program:
        """Start a program; `af`, `asyncio`, `os`, `signal`, `sys` and `time` are imported already."""
        program = Program(self._directory, source, len(self._all), env or {}, argv)
        self._all.append(program)
        return program

    def run(self, source: str, *argv: str, env: dict[str, str] | None = None) -> Program:
        """Start a program and wait for its end, which must be a good one."""
        program = self.start(source, *argv, env=env)
        assert program.ends() == 0, program.told()
        return program

    def end(self) -> None:
        for program in self._all:
            if program.process.poll() is None:
                program.process.kill()
            program.process.wait()
