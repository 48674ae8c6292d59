"""The habits of the house that a linter does not know: small rooms, nothing swallowed, nothing left undone.

Each rule is a function from one source file to its offences. The first half of the file applies every rule to
the five packages; the second half feeds each rule code that breaks it, so that a rule which sees nothing is
noticed.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("actorflow", "actorflow_data", "actorflow_serve", "actorflow_train", "actorflow_tune")
LIBRARIES = tuple(package for package in PACKAGES if package != "actorflow")

FILE_LINES_MAX = 700
FUNCTION_LINES_MAX = 90
LINE_CHARS_MAX = 140

# What may be larger than the bounds, with its own bound: {"actorflow/_core/x.py": 800} for a file and
# {"actorflow/_core/x.py::name": 120} for a function. An entry needs a comment with its reason. Keep it short.
FILE_LINES_ALLOWED: dict[str, int] = {}
FUNCTION_LINES_ALLOWED: dict[str, int] = {}

# Who talks to the person at the terminal: files, or folders that end with a slash. Everything else logs.
PRINTING_ALLOWED = ("actorflow/cli.py", "actorflow/cli/", "actorflow/__main__.py")

POLICY = "actorflow/_core/policy/"
UNDONE = re.compile(r"\b(TODO|FIXME)\b")
BROAD = frozenset({"Exception", "BaseException"})


@dataclass(frozen=True)
class Source:
    """One module: its path from the root of the repository, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=self.path)

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()


class Offence(NamedTuple):
    """Which line, what is wrong with it, and what to do about it."""

    line: int
    text: str


Rule = Callable[[Source], Iterator[Offence]]


# The rules --------------------------------------------------------------------------------------------------


def file_is_small(source: Source) -> Iterator[Offence]:
    length, bound = len(source.lines), FILE_LINES_ALLOWED.get(source.path, FILE_LINES_MAX)
    if length > bound:
        yield Offence(bound + 1, f"{length} lines, at most {bound}. Move one noun into a file of its own.")


def functions_are_small(source: Source) -> Iterator[Offence]:
    for node in _functions(source.tree):
        bound = FUNCTION_LINES_ALLOWED.get(f"{source.path}::{node.name}", FUNCTION_LINES_MAX)
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > bound:
            advice = "Give one of its steps a name and a function."
            yield Offence(node.lineno, f"{node.name}() has {length} lines, at most {bound}. {advice}")


def lines_are_short(source: Source) -> Iterator[Offence]:
    for number, line in enumerate(source.lines, start=1):
        if len(line) > LINE_CHARS_MAX:
            yield Offence(number, f"{len(line)} characters, at most {LINE_CHARS_MAX}. Break the line.")


def module_has_a_docstring(source: Source) -> Iterator[Offence]:
    if not (ast.get_docstring(source.tree) or "").strip():
        yield Offence(1, "no docstring. Say in a sentence what lives in this module and why.")


def nothing_is_swallowed(source: Source) -> Iterator[Offence]:
    advice = "Name the exceptions you expect, or let them go up."
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and _does_nothing(node.body):
            yield Offence(node.lineno, f"a broad except that does nothing. {advice}")
        elif (
            isinstance(node, ast.Call) and _called_name(node) == "suppress" and any(map(_is_broad, node.args))
        ):
            yield Offence(node.lineno, f"suppress() of every exception. {advice}")


def nothing_is_left_undone(source: Source) -> Iterator[Offence]:
    for number, line in enumerate(source.lines, start=1):
        if match := UNDONE.search(line):
            yield Offence(number, f"{match[0]}. Do it now, or open an issue and take the note out.")


def only_the_terminal_prints(source: Source) -> Iterator[Offence]:
    if source.path.startswith(PRINTING_ALLOWED):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield Offence(
                node.lineno, "print(). Use logging, or add the file to PRINTING_ALLOWED if it must."
            )


def policy_reads_no_clock_and_rolls_no_dice(source: Source) -> Iterator[Offence]:
    """import-linter bans these imports as a whole; this rule also names the argument to use instead."""
    if not source.path.startswith(POLICY):
        return
    aliases = _module_aliases(source.tree, {"time", "random"})
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            module, name = aliases[node.value.id], node.attr
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module in {"time", "random"}:
            module, name = node.module, ", ".join(alias.name for alias in node.names)
        else:
            continue
        if name != "Random":  # the type of the `rng` argument
            instead = "now" if module == "time" else "rng"
            yield Offence(node.lineno, f"{module}.{name} in policy. Take `{instead}` as an argument.")


def libraries_use_the_public_face(source: Source) -> Iterator[Offence]:
    if source.path.split("/")[0] not in LIBRARIES:
        return
    for line, module in _imported_modules(source.tree):
        first, *rest = module.split(".")
        if first == "actorflow" and any(part.startswith("_") for part in rest):
            yield Offence(line, f"{module} is private. A library imports public names of actorflow only.")


RULES: list[Rule] = [
    file_is_small,
    functions_are_small,
    lines_are_short,
    module_has_a_docstring,
    nothing_is_swallowed,
    nothing_is_left_undone,
    only_the_terminal_prints,
    policy_reads_no_clock_and_rolls_no_dice,
    libraries_use_the_public_face,
]


# How they see -----------------------------------------------------------------------------------------------


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _is_broad(caught: ast.expr | None) -> bool:
    """A bare `except:`, Exception, BaseException, or a tuple that holds one of them."""
    if caught is None:
        return True
    if isinstance(caught, ast.Tuple):
        return any(map(_is_broad, caught.elts))
    if isinstance(caught, ast.Attribute):
        return caught.attr in BROAD
    return isinstance(caught, ast.Name) and caught.id in BROAD


def _does_nothing(body: list[ast.stmt]) -> bool:
    """`pass`, `...`, `continue` or a lone string: after any of them nobody knows that something failed."""
    return all(
        isinstance(statement, ast.Pass | ast.Continue)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in body
    )


def _called_name(call: ast.Call) -> str | None:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else None


def _module_aliases(tree: ast.Module, modules: set[str]) -> dict[str, str]:
    """The names under which a module knows some others: {"t": "time"} for `import time as t`."""
    return {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name in modules
    }


def _imported_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


# The packages -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    return [
        Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    ]


def test_the_walk_sees_every_package(sources: list[Source]) -> None:
    paths = {source.path for source in sources}
    assert [package for package in PACKAGES if f"{package}/__init__.py" not in paths] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_packages_keep(rule: Rule, sources: list[Source]) -> None:
    offences = [f"{source.path}:{line}: {text}" for source in sources for line, text in rule(source)]
    if offences:
        pytest.fail("\n".join([f"{len(offences)} to mend:", *offences]), pytrace=False)


def test_the_lists_of_exceptions_name_what_exists(sources: list[Source]) -> None:
    paths = {source.path for source in sources}
    functions = {f"{source.path}::{node.name}" for source in sources for node in _functions(source.tree)}
    assert set(FILE_LINES_ALLOWED) <= paths
    assert set(FUNCTION_LINES_ALLOWED) <= functions


INVARIANT = re.compile(r"(?:^\s*|[.)] )([A-Z]{2}-\d+)(?:: | {2,})")
"""Where an invariant is defined: in a docstring, at the beginning of a line or of a sentence."""


def test_the_name_of_an_invariant_means_one_thing(sources: list[Source]) -> None:
    """Asserts and tests quote these names: a reader must find one place that says what they mean."""
    places: dict[str, set[str]] = {}
    for source in sources:
        for line in source.lines:
            for name in INVARIANT.findall(line):
                places.setdefault(name, set()).add(source.path)
    assert len(places) > 100, "the pattern does not see the definitions any more"
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_an_invariant_that_is_quoted_is_defined(sources: list[Source]) -> None:
    defined = {name for source in sources for line in source.lines for name in INVARIANT.findall(line)}
    quoted = {
        f"{source.path}:{number}: {name}"
        for source in sources
        for number, line in enumerate(source.lines, start=1)
        for name in re.findall(r"\b[A-Z]{2}-\d+\b", line)
        if name not in defined
    }
    assert quoted == set()


# The rules, seen to see -------------------------------------------------------------------------------------

LONG_FUNCTION = "async def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX
POLICY_FILE = POLICY + "leases.py"

BROKEN: list[tuple[Rule, str, str, int]] = [
    (file_is_small, "actorflow/a.py", "x = 1\n" * (FILE_LINES_MAX + 1), FILE_LINES_MAX + 1),
    (functions_are_small, "actorflow/a.py", "\n" + LONG_FUNCTION, 2),
    (lines_are_short, "actorflow/a.py", "x = 1\n#" + "x" * LINE_CHARS_MAX, 2),
    (module_has_a_docstring, "actorflow/a.py", "x = 1", 1),
    (module_has_a_docstring, "actorflow/__init__.py", "", 1),
    (nothing_is_swallowed, "actorflow/a.py", "try:\n    f()\nexcept:\n    pass", 3),
    (nothing_is_swallowed, "actorflow/a.py", "try:\n    f()\nexcept Exception:\n    pass", 3),
    (nothing_is_swallowed, "actorflow/a.py", "try:\n    f()\nexcept (OSError, BaseException):\n    ...", 3),
    (nothing_is_swallowed, "actorflow/a.py", "for x in y:\n try: f()\n except Exception: continue", 3),
    (nothing_is_swallowed, "actorflow/a.py", "with contextlib.suppress(Exception):\n    f()", 1),
    (nothing_is_swallowed, "actorflow/a.py", "with suppress(OSError, BaseException):\n    f()", 1),
    (nothing_is_left_undone, "actorflow/a.py", "x = 1  # TO" + "DO: better", 1),
    (nothing_is_left_undone, "actorflow/a.py", "x = 1\n# FIX" + "ME", 2),
    (only_the_terminal_prints, "actorflow/a.py", "def f():\n    print(1)", 2),
    (only_the_terminal_prints, "actorflow_train/cli.py", "print(1)", 1),
    (policy_reads_no_clock_and_rolls_no_dice, POLICY_FILE, "import time\nnow = time.time()", 2),
    (policy_reads_no_clock_and_rolls_no_dice, POLICY_FILE, "import time as t\nnow = t.monotonic()", 2),
    (policy_reads_no_clock_and_rolls_no_dice, POLICY_FILE, "import random\nx = random.choice(y)", 2),
    (policy_reads_no_clock_and_rolls_no_dice, POLICY_FILE, "from random import choice", 1),
    (libraries_use_the_public_face, "actorflow_train/a.py", "import actorflow._core.io", 1),
    (libraries_use_the_public_face, "actorflow_train/a.py", "from actorflow import _runtime", 1),
]

FINE: list[tuple[Rule, str, str]] = [
    (file_is_small, "actorflow/a.py", "x = 1\n" * FILE_LINES_MAX),
    (functions_are_small, "actorflow/a.py", "def f():\n" + "    x = 1\n" * (FUNCTION_LINES_MAX - 1)),
    (lines_are_short, "actorflow/a.py", "#" * LINE_CHARS_MAX),
    (module_has_a_docstring, "actorflow/a.py", '"""What lives here."""'),
    (nothing_is_swallowed, "actorflow/a.py", "try:\n    f()\nexcept OSError:\n    pass"),
    (nothing_is_swallowed, "actorflow/a.py", "try:\n    f()\nexcept Exception as error:\n    g(error)"),
    (nothing_is_swallowed, "actorflow/a.py", "with contextlib.suppress(OSError):\n    f()"),
    (nothing_is_left_undone, "actorflow/a.py", "methodology = 'TODOS'"),
    (only_the_terminal_prints, "actorflow/cli/status.py", "print(1)"),
    (only_the_terminal_prints, "actorflow/a.py", "printer.print(1)"),
    (policy_reads_no_clock_and_rolls_no_dice, POLICY_FILE, "def f(now, rng):\n    return rng.random() + now"),
    (policy_reads_no_clock_and_rolls_no_dice, POLICY_FILE, "from random import Random"),
    (policy_reads_no_clock_and_rolls_no_dice, "actorflow/_core/io/loop.py", "import time\nnow = time.time()"),
    (libraries_use_the_public_face, "actorflow_train/a.py", "import actorflow\nfrom actorflow import errors"),
    (libraries_use_the_public_face, "actorflow/a.py", "from actorflow._core import base"),
]


@pytest.mark.parametrize(("rule", "path", "text", "line"), BROKEN)
def test_a_rule_sees_what_breaks_it(rule: Rule, path: str, text: str, line: int) -> None:
    assert [offence.line for offence in rule(Source(path, text))] == [line]


@pytest.mark.parametrize(("rule", "path", "text"), FINE)
def test_a_rule_leaves_good_code_alone(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(path, text))) == []


def test_every_rule_is_seen_to_see() -> None:
    assert {rule for rule, *_ in BROKEN} == {rule for rule, *_ in FINE} == set(RULES)
