"""Where a node listens, what others are told, and when that reaches beyond this host."""

from __future__ import annotations

import pytest

from actorflow._core.base.errors import ClusterStartError
from actorflow._core.boot import node_place
from actorflow._core.boot.node_place import Place, addresses_of, host_and_port, place_of


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every way begins at 10.1.1.1; returns where they lead."""
    asked: list[tuple[str, int]] = []

    def found(where: tuple[str, int]) -> str:
        asked.append(where)
        return "10.1.1.1"

    monkeypatch.setattr(node_place, "_way_to", found)
    return asked


@pytest.mark.parametrize(
    ("given", "place"),
    [
        (("", "", ""), Place("127.0.0.1", "127.0.0.1", False)),
        (("::1", "", ""), Place("::1", "::1", False)),
        (("10.0.0.5", "", ""), Place("10.0.0.5", "10.0.0.5", True)),
        (("0.0.0.0", "", ""), Place("0.0.0.0", "10.1.1.1", True)),
        (("::", "", ""), Place("::", "10.1.1.1", True)),
        (("0.0.0.0", "node.example", ""), Place("0.0.0.0", "node.example", True)),
        (("127.0.0.1", "10.0.0.9", ""), Place("127.0.0.1", "10.0.0.9", False)),
        (("", "", "10.0.0.1:6380"), Place("10.1.1.1", "10.1.1.1", True)),
        (("127.0.0.1", "", "127.0.0.1:6380"), Place("127.0.0.1", "127.0.0.1", False)),
        (("127.0.0.1", "", "10.0.0.1:6380"), Place("127.0.0.1", "127.0.0.1", True)),
    ],
)
def test_what_was_not_given_is_filled_in(given: tuple[str, str, str], place: Place, way: list[tuple[str, int]]) -> None:
    assert place_of(*given) == place


def test_the_way_is_that_to_the_head(way: list[tuple[str, int]]) -> None:
    place_of("", "", "10.0.0.1:6380")
    place_of("0.0.0.0", "", "10.0.0.2:6380")
    place_of("0.0.0.0", "", "")
    assert way == [("10.0.0.1", 6380), ("10.0.0.2", 6380), ("192.0.2.1", 9)]


def test_on_loopback_a_way_is_found_and_nothing_is_sent() -> None:
    assert place_of("", "", "127.0.0.1:1") == Place("127.0.0.1", "127.0.0.1", False)


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "host:port", "::1:5", "host:99999"])
def test_what_is_no_address_says_what_is(text: str) -> None:
    with pytest.raises(ClusterStartError, match="is no address of a node.*give HOST:PORT|is no address of a node. Give HOST:PORT"):
        host_and_port(text)


def test_an_address_with_brackets() -> None:
    assert host_and_port("[::1]:5") == ("::1", 5)


def test_a_name_that_does_not_resolve() -> None:
    with pytest.raises(ClusterStartError, match=r"no-such-host\.invalid cannot be used: the name does not resolve.*give an IP address"):
        addresses_of("no-such-host.invalid", 1)
