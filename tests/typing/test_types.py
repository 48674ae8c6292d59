"""The static types of the face: mypy --strict and pyright accept good.py, and report each bad line of bad.py."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# The first run after a change reads the whole package.
pytestmark = pytest.mark.timeout(300)


def mypy(folder: Path, *files: str) -> dict[tuple[str, int], str]:
    """The errors mypy --strict reports, by file and line."""
    options = ["--strict", "--python-version=3.11", "--follow-imports=silent", "--config-file="]
    options += [f"--cache-dir={ROOT / '.mypy_cache' / 'typing'}", "--output=json"]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *files],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    return {(one["file"], one["line"]): one["message"] for one in found if one["severity"] == "error"}


def pyright(folder: Path, *files: str) -> dict[tuple[str, int], str]:
    """The errors pyright reports in its standard mode, by file and line."""
    config = {"extraPaths": [str(ROOT)], "pythonVersion": "3.11", "typeCheckingMode": "standard"}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    run = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, *files],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    return {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1): one["message"]
        for one in json.loads(run.stdout)["generalDiagnostics"]
        if one["severity"] == "error"
    }


Checker = Callable[..., dict[tuple[str, int], str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two programs, and the good one once more with the package under another name."""
    folder = tmp_path_factory.mktemp("typing")
    for name in ("good.py", "bad.py"):
        shutil.copy(HERE / name, folder)
    (folder / "af.py").write_text("from actorflow import *\n")
    (folder / "star.py").write_text(
        (HERE / "good.py").read_text().replace("import actorflow as af", "import af")
    )
    return folder


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_the_good_program_is_accepted(checker: Checker, folder: Path) -> None:
    assert checker(folder, "good.py", "star.py") == {}


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_every_bad_line_is_reported(checker: Checker, folder: Path) -> None:
    lines = (HERE / "bad.py").read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, start=1) if "# wrong" in line}
    # Of a decorator that is wrong, mypy says once more below it that it makes the function untyped.
    below = {number + 1 for number in wrong if lines[number - 1].startswith("@")}
    reported = {line for file, line in checker(folder, "bad.py") if file == "bad.py"}
    assert sorted(wrong - reported) == []
    assert sorted(reported - wrong - below) == []
