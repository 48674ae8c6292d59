"""The public face is small, sorted and frozen: a name that comes or goes is a decision, made here too."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import actorflow as af
from actorflow._core.base import errors

ROOT = Path(__file__).resolve().parents[2]

# By the rows of the table in the design, without the errors.
FACE = {
    "life": ["init", "is_initialized", "run", "shutdown"],
    "objects": ["ObjectRef", "as_completed", "deref", "get", "put", "free", "wait"],
    "streams": ["Stream"],
    "end of work": ["check_cancelled", "kill", "timeout", "wait_dead"],
    "groups": ["TaskGroup", "map", "util"],
    "functions": ["BoundMethod", "RemoteFunction", "remote"],
    "actors": ["Actor", "ActorClass", "Handle", "get_actor", "method"],
    "options": ["NodeAffinity", "options"],
    "supervision": ["Supervision", "supervise"],
    "placement groups": ["PlacementGroup", "get_placement_group", "placement_group"],
    "what travels with calls": ["context"],
    "blocking code": ["sync"],
    "nodes that leave": ["drain_node"],
    "looking": [
        "available_resources",
        "cluster_resources",
        "get_runtime_context",
        "nodes",
        "state",
        "timeline",
    ],
    "errors": ["errors"],
}
# Errors by name; `errors` itself is a module.
ERRORS = sorted(errors.TREE)


def run_python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_face_is_frozen() -> None:
    assert sorted(af.__all__) == sorted([*ERRORS, *(name for names in FACE.values() for name in names)])


def test_the_face_is_sorted() -> None:
    assert af.__all__ == sorted(af.__all__)


@pytest.mark.parametrize("name", af.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(af, name) is getattr(af, name)
    assert name in dir(af)


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_exported_in_both_places(name: str) -> None:
    assert getattr(af, name) is getattr(af.errors, name) is errors.TREE[name]
    assert name in af.errors.__all__


def test_star_import_gives_the_face() -> None:
    namespace: dict[str, Any] = {}
    exec("from actorflow import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(af.__all__)


def test_type_checkers_and_python_see_the_same_homes() -> None:
    for home, names in af._HOMES.items():
        module = importlib.import_module(home)
        assert all(getattr(module, name) is getattr(af, name) for name in names)


def test_an_unknown_name_says_which_is_near() -> None:
    with pytest.raises(
        AttributeError, match=r"module 'actorflow' has no attribute 'remot'. Did you mean: 'remote'\?"
    ):
        af.remot
    with pytest.raises(ImportError):
        exec("from actorflow import nothing_like_it")


def test_the_import_is_light() -> None:
    loaded = set(run_python("import sys, actorflow; print(*sorted(sys.modules))").split())
    assert {name for name in loaded if name.startswith("actorflow")} == {"actorflow"}
    assert loaded.isdisjoint({"asyncio", "dataclasses", "inspect", "typing"})


def test_functions_and_actors_load_no_loop() -> None:
    code = "import sys, actorflow as af; af.remote, af.Actor, af.method; print(*sorted(sys.modules))"
    loaded = set(run_python(code).split())
    assert loaded.isdisjoint(
        {"asyncio", "cloudpickle", "json", "multiprocessing", "socket", "subprocess", "uvloop"}
    )


def test_the_version_is_the_distributions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert af.__version__ == project["version"]
