"""What the documents say is run: code blocks, the output they show, commands, links, file names, names of invariants.

The Python blocks of README.md are programs of their own. Those of a page in docs/guide are one program, in their
order. A block runs at the line where it stands in the page, so a traceback names that line. A `text` block right
after a Python block is its output: `...` stands for anything, and what workers printed, such as
`(work pid=...) hello`, may come at any point.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from actorflow import cli

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
GUIDE = sorted((ROOT / "docs" / "guide").glob("*.md"))
PAGES = sorted([README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
TIMEOUT_S = 40.0
MARK = "--- end of the block that ends in line "
FROM_WORKER = re.compile(r"\(\w+ pid=[\d.]+\) [^\n]*\n")
"""Anywhere in a line: the thread that shows it may come between the text and the line end of the program's own `print`."""
TO_COME: set[str] = set()
"""Pages that are linked to and not written yet."""


@dataclass(frozen=True)
class Block:
    """One fenced block; `line` is the number of its first line in the page, from 1."""

    page: Path
    language: str
    line: int
    text: str
    shown: str | None
    """For Python: the output that stands right after it, if any."""

    @property
    def end(self) -> int:
        """The line of the closing fence."""
        return self.line + self.text.count("\n")


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in their order."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        if not lines[at].startswith("```"):
            at += 1
            continue
        end = lines.index("```", at + 1)
        text = "".join(f"{line}\n" for line in lines[at + 1 : end])
        shown = None
        if lines[at] == "```python" and lines[end + 1 : end + 2] == ["```text"]:
            stop = lines.index("```", end + 2)
            shown = "".join(f"{line}\n" for line in lines[end + 2 : stop])
        found.append(Block(page, lines[at].removeprefix("```"), at + 2, text, shown))
        at = end + 1
    return found


def python_blocks(page: Path) -> list[Block]:
    return [block for block in blocks_of(page) if block.language == "python"]


def program_of(blocks: list[Block]) -> str:
    """The blocks at their own lines, each followed by a line of output that says where it ended."""
    lines: list[str] = []
    for block in blocks:
        lines += [""] * (block.line - 1 - len(lines))
        lines += block.text.splitlines()
        lines.append(f"print({MARK + str(block.end)!r}, flush=True)")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def home() -> Iterator[str]:
    """Where the clusters of these programs have their sockets; nothing may be left there."""
    with tempfile.TemporaryDirectory(prefix="afd-") as directory:
        yield directory
        assert not list(Path(directory).glob("actorflow-*/*")), "a program has left its session directory"


def run(blocks: list[Block], folder: Path, home: str) -> tuple[dict[int, str], str]:
    """Run blocks as one program in a new interpreter: what each printed, by its last line, and what workers printed."""
    script = folder / f"{blocks[0].page.stem.lower()}.py"
    script.write_text(program_of(blocks), encoding="utf-8")
    out, err = folder / "out", folder / "err"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACTORFLOW_")}
    environment |= {"ACTORFLOW_TMPDIR": home, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    environment["ACTORFLOW_SIMULATED_DEVICES"] = ""  # The pages show a machine without accelerators.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with open(out, "wb") as out_file, open(err, "wb") as err_file:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script)],
            stdin=subprocess.DEVNULL, stdout=out_file, stderr=err_file, cwd=folder, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    told = f"{blocks[0].page.name}: exit code {code}\n--- stdout\n{out.read_text()}\n--- stderr\n{err.read_text()}"
    assert code == 0, told
    printed: dict[int, str] = {}
    text = ""
    # What workers printed arrives when it arrives, the last of it perhaps after the last mark.
    everything = out.read_text(encoding="utf-8")
    from_workers = FROM_WORKER.findall(everything)
    for line in FROM_WORKER.sub("", everything).splitlines(keepends=True):
        if line.startswith(MARK):
            printed[int(line.removeprefix(MARK))] = text
            text = ""
        else:
            text += line
    assert list(printed) == [block.end for block in blocks], told
    return printed, "".join(from_workers)


def check_shown(block: Block, printed: dict[int, str], from_workers: str) -> None:
    """Compare what a page shows with what was printed."""
    if block.shown is None:
        return
    shown, own = FROM_WORKER.sub("", block.shown), printed[block.end]
    assert _pattern(shown).fullmatch(own), f"{block.page.name}:{block.line} shows\n{shown}\nand prints\n{own}"
    for line in FROM_WORKER.findall(block.shown):
        assert _pattern(line).search(from_workers), f"{block.page.name}:{block.line}: no worker printed {line!r}\n{from_workers}"


def _pattern(shown: str) -> re.Pattern[str]:
    return re.compile(re.escape(shown).replace(re.escape("..."), ".*?"), re.DOTALL)


@pytest.mark.parametrize("block", python_blocks(README), ids=lambda block: f"line {block.line}")
def test_readme(block: Block, tmp_path: Path, home: str) -> None:
    check_shown(block, *run([block], tmp_path, home))


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.stem)
def test_guide(page: Path, tmp_path: Path, home: str) -> None:
    blocks = python_blocks(page)
    assert blocks, "a guide shows code"
    printed, from_workers = run(blocks, tmp_path, home)
    for block in blocks:
        check_shown(block, printed, from_workers)


def test_the_readme_and_each_guide_show_output() -> None:
    for page in (README, *GUIDE):
        assert any(block.shown for block in python_blocks(page)), page.name


# Commands -------------------------------------------------------------------------------------------------------------


def commands() -> list[tuple[str, str]]:
    """(where, command) of every line after a `$` in a console block."""
    return [
        (f"{page.name}:{block.line + offset}", line.removeprefix("$ "))
        for page in PAGES
        for block in blocks_of(page)
        if block.language == "console"
        for offset, line in enumerate(block.text.splitlines())
        if line.startswith("$ ")
    ]


def makefile() -> tuple[set[str], set[str]]:
    """The targets and the variables of the Makefile."""
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    return set(phony[1].split()), set(re.findall(r"^([A-Z_]+) \?=", text, re.MULTILINE))


@pytest.mark.parametrize(("where", "command"), commands())
def test_commands_exist(where: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in command.partition(" #")[0].split() if word != "&"]
    # Settings before the command are for its environment.
    while words and re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    if words[0] == "make":
        targets, variables = makefile()
        for word in words[1:]:
            name, given, _ = word.partition("=")
            assert name in (variables if given else targets), f"{where}: the Makefile has no {name}"
    elif words[0] == "actorflow":
        assert words[1:], where
        # Here and not in a process each: a hundred of them are half a minute of imports.
        with pytest.raises(SystemExit) as ended:
            cli.main([*words[1:], "--help"])
        assert ended.value.code == 0, f"{where}: {capsys.readouterr().err}"
    elif words[0] in ("python", ".venv/bin/python") and words[1] != "-m":
        assert (ROOT / words[1]).is_file(), f"{where}: there is no {words[1]}"
    elif words[0] in ("python", ".venv/bin/python"):
        module = ROOT / words[2].replace(".", "/")
        assert words[2] == "pytest" or module.with_suffix(".py").is_file() or (module / "__main__.py").is_file(), where
    else:
        pytest.fail(f"{where}: {command!r} is neither make, actorflow nor python: nobody can check it")


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" in target:
            continue
        found = (page.parent / target).resolve()
        assert found.exists() or str(found.relative_to(ROOT)) in TO_COME, f"{page.name}: {target}"


INTERNALS = sorted((ROOT / "docs" / "internals").glob("*.md"))
TOLD = [ROOT / "docs" / "ARCHITECTURE.md", *INTERNALS]


@pytest.mark.parametrize("page", TOLD, ids=lambda page: page.stem)
def test_files_that_are_named_exist(page: Path) -> None:
    """`worker/caller.py` in a page is the end of a path in the repository."""
    known = {f"/{path.relative_to(ROOT)}" for folder in ("actorflow", "tests", "examples") for path in (ROOT / folder).rglob("*.py")}
    for name in set(re.findall(r"`([\w./]+\.py)`", page.read_text())):
        assert any(path.endswith(f"/{name}") for path in known), f"{page.name}: no file {name}"


INVARIANT = re.compile(r"\b[A-Z]{2}-\d+\b")


@pytest.fixture(scope="module")
def invariants() -> set[str]:
    """Those that are written in the source of the product, and of the simulation that tests it."""
    simulated = [ROOT / "tests" / "sim" / "scenarios" / "stage.py", *(ROOT / "tests" / "sim" / "whole").glob("*.py")]
    sources = [*(ROOT / "actorflow").rglob("*.py"), *simulated]
    return {name for path in sources for name in INVARIANT.findall(path.read_text())}


@pytest.mark.parametrize("page", TOLD, ids=lambda page: page.stem)
def test_invariants_that_are_named_exist(page: Path, invariants: set[str]) -> None:
    """`OW-1` in a page is written in the source of the product."""
    for name in set(INVARIANT.findall(page.read_text())):
        assert name in invariants, f"{page.name}: no invariant {name}"
