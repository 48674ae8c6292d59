"""Classes that are defined anew in one program (SEMANTICS 23)."""

from __future__ import annotations

import pytest

from actorflow._core.worker import class_versions
from actorflow._core.worker.class_versions import ClassVersions


class Cell: ...


class Other: ...


def test_23_an_older_version_is_told_once_and_the_newest_never(caplog: pytest.LogCaptureFixture) -> None:
    versions = ClassVersions()
    versions.made(Cell, "first")
    versions.found("'a'", "first")
    versions.made(Cell, "second")
    versions.made(Other, "third")
    for class_id in ("second", "third", "of another program"):
        versions.found("'a'", class_id)
    assert caplog.records == []
    for _ in range(2):
        versions.found("'a'", "first")
    [record] = caplog.records
    assert "the actor 'a' runs an older definition of its class Cell" in record.getMessage()


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(class_versions, "CLASSES_MAX", 3)
    versions = ClassVersions()
    for number in range(10):
        versions.made(Cell, str(number))
    assert len(versions._places) == 3
    versions.found("'a'", "0")
    assert caplog.records == []
    versions.found("'a'", "8")
    assert len(caplog.records) == 1


def test_a_class_that_is_defined_as_before_is_the_newest_again(caplog: pytest.LogCaptureFixture) -> None:
    versions = ClassVersions()
    for class_id in ("first", "second", "first"):
        versions.made(Cell, class_id)
    versions.found("'a'", "first")
    assert caplog.records == []
    versions.found("'a'", "second")
    assert len(caplog.records) == 1
