"""Real kernels, driven as a notebook server does it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import leaks

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("ipykernel", "nbclient", "nbformat")
END_S = 20.0


class Notebook:
    """A notebook that is written cell by cell."""

    def __init__(self, loop: str, directory: Path) -> None:
        self._log = directory / "log"
        with open(self._log, "wb") as log:
            self._driver = subprocess.Popen(
                [sys.executable, "-m", "tests.notebook.driver", loop, str(directory)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, text=True,
            )  # fmt: skip
        self.interrupted_at = 0.0

    def cell(self, code: str, interrupt_after_s: float | None = None) -> str:
        """Run one more cell; what it shows: its text, its value, its error as `Name: message`."""
        assert self._driver.stdin is not None and self._driver.stdout is not None
        self._driver.stdin.write(json.dumps({"code": code, "interrupt_after_s": interrupt_after_s}) + "\n")
        self._driver.stdin.flush()
        line = self._driver.stdout.readline()
        assert line, self._log.read_text()
        answer = json.loads(line)
        self.interrupted_at = answer["interrupted_at"]
        return str(answer["shown"])

    def value(self, code: str) -> str:
        """Run a cell that must end well, and what it shows without the lines of actorflow itself."""
        shown = self.cell(code)
        assert "Error: " not in shown and "the kernel failed" not in shown, shown
        return "".join(line for line in shown.splitlines(keepends=True) if not line.startswith("actorflow: "))

    def end(self) -> None:
        """Shut the kernel down."""
        self._driver.communicate(timeout=END_S)


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """The temporary directory of the clusters of these notebooks."""
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install -e '.[dev]'")
    with tempfile.TemporaryDirectory(prefix="afn-") as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACTORFLOW_TMPDIR", directory)
        patch.delenv("ACTORFLOW_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("IPYTHONDIR", f"{directory}/ipython")
        patch.setenv("JUPYTER_RUNTIME_DIR", f"{directory}/runtime")
        yield Path(directory)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def notebook(request: pytest.FixtureRequest, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """A kernel, on each kind of loop, for the tests of one module; its end leaves nothing."""
    notebook = Notebook(request.param, tmp_path_factory.mktemp("notebook"))
    try:
        notebook.value("import asyncio, sys, time\nimport actorflow as af")
        assert notebook.value("af.__file__") == repr(str(ROOT / "actorflow" / "__init__.py"))
        loop = notebook.value("type(asyncio.get_running_loop()).__module__")
        assert ("uvloop" in loop) == (request.param == "uvloop")
        yield notebook
    finally:
        notebook.end()
    assert leaks.until(lambda: not leaks.leftovers(home), END_S), leaks.leftovers(home)

