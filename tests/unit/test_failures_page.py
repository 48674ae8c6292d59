"""docs/internals/failures.md: the tests and modules that it names exist, and each promise has a test."""

import re
from pathlib import Path

import actorflow.errors

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "internals" / "failures.md").read_text()
PROMISES = PAGE.partition("## What is not kept yet")[0]


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`((?:\w+/)*test_\w+\.py)::(test_\w+)`", PAGE)
    assert len(named) > 35
    files = {file: ROOT / "tests" / (file if "/" in file else f"integration/{file}") for file, _ in named}
    assert [file for file, path in files.items() if not path.exists()] == []
    assert [name for file, name in named if f"def {name}(" not in files[file].read_text()] == []


def test_every_promise_names_a_test() -> None:
    rows = [line for line in PROMISES.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) > 25
    assert [row for row in rows if "::test_" not in row] == []


def test_every_module_that_the_page_names_exists() -> None:
    modules = re.findall(r"`((?:boot|io|node|policy|protocol|security|worker)/\w+\.py)`", PAGE)
    assert len(modules) > 15
    assert [module for module in modules if not (ROOT / "actorflow" / "_core" / module).exists()] == []


def test_the_guide_says_what_each_error_means() -> None:
    """All names that a program may catch are in the tables of the page, or in the words below them."""
    page = (ROOT / "docs" / "guide" / "errors.md").read_text()
    listed = set(re.findall(r"`(\w+)`", page.partition("## All of them")[2]))
    assert set(actorflow.errors.__all__) - listed - {"ActorflowError"} == set()
