"""Names: who has which, and what was probably meant."""

from __future__ import annotations

import pytest

from actorflow._core.base.errors import InternalError
from actorflow._core.policy.names import NameBook


def book(*names: str, namespace: str = "default") -> NameBook:
    names_book = NameBook()
    for name in names:
        names_book.take(namespace, name, f"id of {name}")
    return names_book


def test_a_name_is_held_in_one_namespace() -> None:
    names = book("counter")
    assert names.find("default", "counter") == "id of counter"
    assert names.find("other", "counter") is None
    names.free("default", "counter", "id of counter")
    assert names.find("default", "counter") is None


def test_na1_a_name_is_held_by_one_actor() -> None:
    names = book("counter")
    with pytest.raises(InternalError, match="NM-1"):
        names.take("default", "counter", "somebody else")
    with pytest.raises(InternalError, match="NM-1"):
        names.free("default", "counter", "somebody else")


@pytest.mark.parametrize(
    ("asked", "meant"),
    [("conter", ["counter"]), ("Counter", ["counter"]), ("the-counter", ["counter"]), ("xyz", []), ("", [])],
)
def test_near_names(asked: str, meant: list[str]) -> None:
    assert book("counter", "index", "broker").near("default", asked) == meant


def test_near_names_are_found_among_very_many() -> None:
    names = book(*(f"worker-{number}" for number in range(5_000)))
    assert names.near("default", "worker_17")[0] == "worker-17"


def test_the_same_name_elsewhere_is_told() -> None:
    names = book("counter", namespace="blue")
    names.take("green", "counter", "another")
    assert names.elsewhere("default", "counter") == ["blue", "green"]
    assert names.elsewhere("blue", "counter") == ["green"]
