"""The four library packages are empty faces: they say what is coming, and they do not pretend."""

import importlib
import importlib.resources
from types import ModuleType

import pytest

# One name from each row of the public face, and what the docstring must own up to.
PLANNED = {
    "actorflow_data": ["read_parquet", "read_csv", "range", "from_items", "from_pandas", "col"],
    "actorflow_serve": ["Deployment", "Handle", "run", "batch", "multiplexed", "ingress", "status", "delete"],
    "actorflow_train": ["TorchTrainer", "ScalingConfig", "RunConfig", "Checkpoint", "report"],
    "actorflow_tune": ["Tuner", "report", "uniform", "choice", "grid_search", "ASHAScheduler"],
}
PAIRS = [(package, name) for package, names in PLANNED.items() for name in names]


@pytest.fixture(params=sorted(PLANNED))
def library(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


@pytest.mark.parametrize(("package", "name"), PAIRS)
def test_a_planned_name_says_that_it_is_not_built(package: str, name: str) -> None:
    module = importlib.import_module(package)
    with pytest.raises(AttributeError) as caught:
        getattr(module, name)
    assert str(caught.value).startswith(f"{package}.{name} is not built yet; ")
    assert "import actorflow" in str(caught.value)
    assert caught.value.name == name


def test_an_unknown_name_gets_pythons_own_words(library: ModuleType) -> None:
    with pytest.raises(AttributeError) as caught:
        library.no_such_name
    assert str(caught.value) == f"module '{library.__name__}' has no attribute 'no_such_name'"


def test_a_planned_name_cannot_be_imported(library: ModuleType) -> None:
    name = PLANNED[library.__name__][0]
    with pytest.raises(ImportError, match=name):
        exec(f"from {library.__name__} import {name}")


def test_the_face_is_empty(library: ModuleType) -> None:
    public = {name for name in vars(library) if not name.startswith("_")}
    assert public - {"TYPE_CHECKING", "Final", "NoReturn"} == set()
    assert library.__all__ == []
    assert not any(hasattr(library, name) for name in PLANNED[library.__name__])


def test_the_docstring_says_that_nothing_is_there_yet(library: ModuleType) -> None:
    first_line = (library.__doc__ or "").splitlines()[0]
    assert first_line.endswith("what is coming, and nothing of it is there yet.")


def test_every_package_ships_its_types() -> None:
    marker = {name: importlib.resources.files(name) / "py.typed" for name in ["actorflow", *PLANNED]}
    assert [name for name, path in marker.items() if not path.is_file()] == []
