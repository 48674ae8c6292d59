"""Small rooms: fences, the lobby, where to listen, and what keys entitle to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.security.exposure import is_loopback, listening_problem
from actorflow._core.security.fences import REMOVED, Fences
from actorflow._core.security.lobby import Lobby
from actorflow._core.security.roles import MAY_ACCEPT, MAY_CONNECT, KeyKind, Role, certified_name

# Fences ---------------------------------------------------------------------------------------------------------------


def test_a_fence_only_rises() -> None:
    """FN-1."""
    fences = Fences()
    assert fences.admits("n", 0)
    fences.raise_to("n", 3)
    fences.raise_to("n", 2)
    assert [fences.admits("n", life) for life in (0, 2, 3, 4)] == [False, False, True, True]
    assert fences.admits("m", 0)
    assert not Fences(fences.rows()).admits("n", 2), "a head that comes back remembers"


def test_who_is_removed_never_comes_back() -> None:
    fences = Fences()
    fences.remove("n")
    fences.raise_to("n", 1)
    assert not fences.admits("n", REMOVED - 1)


def test_fences_are_bounded_and_the_oldest_goes() -> None:
    fences = Fences(fences_max=2)
    for process_id in ("a", "b"):
        fences.remove(process_id)
    fences.raise_to("a", 1)
    fences.remove("c")
    assert [fences.admits(process_id, 1) for process_id in "abc"] == [False, True, False]


# The lobby ------------------------------------------------------------------------------------------------------------


def test_one_source_leaves_room_for_others() -> None:
    """LB-1."""
    lobby = Lobby(total_max=4, source_max=3)
    assert [lobby.enter("flood") for _ in range(5)] == [True, True, True, False, False]
    assert lobby.enter("honest")
    assert not lobby.enter("late"), "full"
    lobby.leave("flood")
    assert lobby.enter("late")


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"))))
def test_the_lobby_counts(steps: list[tuple[bool, str]]) -> None:
    lobby, inside = Lobby(total_max=4, source_max=2), {"a": 0, "b": 0, "c": 0}
    for coming, source in steps:
        if coming:
            room = sum(inside.values()) < 4 and inside[source] < 2
            assert lobby.enter(source) == room
            inside[source] += room
        elif inside[source]:
            lobby.leave(source)
            inside[source] -= 1
        assert lobby.total == sum(inside.values())
    for source, count in inside.items():
        for _ in range(count):
            lobby.leave(source)
    assert lobby.total == 0
    with pytest.raises(KeyError):
        lobby.leave("a")


# Where to listen ------------------------------------------------------------------------------------------------------

LOOPBACK = ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "::1%lo"]
WIDE = ["0.0.0.0", "::", "10.0.0.1", "192.168.1.1", "8.8.8.8", "fe80::1%eth0", "::ffff:10.0.0.1", "::ffff:0.0.0.0", "", "localhost"]


@pytest.mark.parametrize("address", LOOPBACK)
def test_loopback_is_this_host_only(address: str) -> None:
    assert is_loopback(address)
    assert listening_problem(address, [address], secret=False, tls=False) == ""


@pytest.mark.parametrize("address", WIDE)
def test_nothing_listens_beyond_loopback_without_secret_and_tls(address: str) -> None:
    """XP-1."""
    assert not is_loopback(address)
    for secret, tls, missing in ((False, False, "a cluster secret and TLS"), (True, False, "TLS"), (False, True, "a cluster secret")):
        problem = listening_problem("host", ["127.0.0.1", address], secret=secret, tls=tls)
        assert f"will not listen on host ({address})" in problem
        assert f"without {missing}: anybody there could run code here" in problem
    assert listening_problem("host", [address], secret=True, tls=True) == ""


# Roles ----------------------------------------------------------------------------------------------------------------


def test_every_kind_of_key_has_a_row() -> None:
    assert set(MAY_CONNECT) == set(MAY_ACCEPT) == set(KeyKind)


def test_only_keys_of_nodes_and_join_tokens_make_a_node() -> None:
    """RL-1."""
    assert {kind for kind in KeyKind if MAY_CONNECT[kind] & {Role.NODE, Role.HEAD}} == {KeyKind.NODE, KeyKind.JOIN}
    assert MAY_ACCEPT[KeyKind.JOIN] == {Role.HEAD}


def test_names_in_certificates() -> None:
    assert [certified_name(role, "x") for role in Role] == ["head/x", "node/x", "job/x", "job/x"]
