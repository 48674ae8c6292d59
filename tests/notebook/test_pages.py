"""The example notebook and the cells of the guide run in a real kernel, and show what they say (SEMANTICS 28)."""

from __future__ import annotations

import json

import pytest

from tests.docs.test_readme import blocks_of
from tests.notebook.conftest import ROOT, Notebook


def test_28_the_example_notebook(notebook: Notebook) -> None:
    cells = json.loads((ROOT / "examples" / "notebook.ipynb").read_text())["cells"]
    codes = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(codes) > 4
    for cell in codes:
        stored = "".join("".join(output.get("text", output.get("data", {}).get("text/plain", ""))) for output in cell["outputs"])
        assert notebook.value("".join(cell["source"])) == stored


def test_28_the_cells_of_the_guide(notebook: Notebook) -> None:
    blocks = blocks_of(ROOT / "docs" / "guide" / "notebooks.md")
    cells = [(block, after) for block, after in zip(blocks, blocks[1:], strict=False) if block.language == "python cell"]
    assert len(cells) > 3
    for cell, output in cells:
        assert output.language == "text", f"line {cell.line}: a cell shows something"
        assert notebook.value(cell.text) == output.text, f"line {cell.line}"


@pytest.fixture(autouse=True)
def no_runtime(notebook: Notebook) -> None:
    notebook.value("import actorflow as af; af.shutdown()")
