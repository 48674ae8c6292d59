"""Passes: one visitor, one host job, for a time; and nobody becomes a member by one."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from actorflow._core.security.challenge import Acceptor, Binding, Expected
from actorflow._core.security.errors import Code, HandshakeRefused
from actorflow._core.security.keys import KEY_BYTES, Key, KeyId, Keyring
from actorflow._core.security.passes import PASS_USED_S, PASS_VALID_S, PassBook, issue, key_of_visitor, pass_key, refusal
from actorflow._core.security.roles import OF_JOBS, KeyKind, Role
from actorflow._core.security.secret import Secrets
from actorflow._core.security.wire import Opening, Party, Proof
from tests.unit.security.harness import (
    DEADLINE,
    DRIVER,
    HEAD,
    JOB,
    NODE,
    NOW,
    SECRETS,
    WALL,
    WORKER,
    A,
    B,
    Pair,
    preface,
    ring_of,
    terms,
    verdict_code,
)

VISITOR = Party(Role.WORKER, "visitor-1")
THEIR_JOB = "job-2"
EXPIRES = int(WALL + PASS_VALID_S)


def a_pass(secrets: Secrets = SECRETS, visitor: str = VISITOR.process_id, visitor_job: str = THEIR_JOB, host_job: str = JOB) -> Key:
    """As the head gives them."""
    return issue(secrets.keyring().for_node(), visitor, visitor_job, host_job, WALL)[0]


def visit(key: Key, me: Party = VISITOR, host: Party = WORKER, **more: object) -> Pair:
    return Pair(me, host, key=key, expected=Expected(OF_JOBS, host.process_id, job_id=JOB), **more)  # type: ignore[arg-type]


def test_who_is_visited_makes_the_pass_again_and_asks_nobody() -> None:
    key = a_pass()
    assert key.id == KeyId(KeyKind.VISIT, SECRETS.keyring().for_job(JOB).keys[0].id.secret_id, THEIR_JOB, EXPIRES)
    assert key_of_visitor(ring_of(WORKER), key.id, VISITOR.process_id) == key
    for host in (WORKER, DRIVER):
        pair = visit(key, host=host)
        pair.shake()
        assert pair.acceptor.peer is not None
        assert pair.acceptor.peer.key_id.subject == THEIR_JOB, "and knows of which job the visitor is"
    visit(a_pass(visitor=DRIVER.process_id), me=DRIVER).shake()


def test_px_1_every_part_is_in_the_derivation() -> None:
    keys = ring_of(WORKER).keys + ring_of(WORKER, job="job-3").keys + ring_of(WORKER, Secrets(B)).keys
    passes = [pass_key(key, *parts) for key in keys for parts in product(("v", "v2", "v" * 24), ("j", "j2", "j" * 32), (1, 256))]
    materials = {one.material for one in passes} | {key.material for key in keys}
    assert len(materials) == len(passes) + len(keys)
    assert all(len(material) == KEY_BYTES for material in materials)


@pytest.mark.parametrize("visitor", ["", "v" * 25])
def test_a_visitor_without_a_name_that_a_handshake_can_hold(visitor: str) -> None:
    with pytest.raises(ValueError, match="1 to 24"):
        pass_key(ring_of(WORKER).keys[0], visitor, THEIR_JOB, EXPIRES)


def test_px_1_a_forged_pass_and_that_of_another_are_refused() -> None:
    right = a_pass()
    own = ring_of(VISITOR, job=THEIR_JOB).keys[0]
    forged = [
        Key(right.id, bytes(32)),
        Key(right.id, own.material),
        Key(right.id, pass_key(own, VISITOR.process_id, THEIR_JOB, EXPIRES).material),
        a_pass(visitor="visitor-2"),
        a_pass(host_job="job-3"),
        Key(replace(right.id, expires=EXPIRES + 1), right.material),
        Key(replace(right.id, expires=0), right.material),
        Key(replace(right.id, subject="job-3"), right.material),
        Key(replace(right.id, subject=JOB), right.material),
        Key(replace(right.id, subject=""), right.material),
        Key(replace(right.id, single_use=True), right.material),
        a_pass(Secrets(B)),
    ]
    for key in forged:
        assert visit(key).refusal()[1].code is Code.NOT_ADMITTED, key.id
    assert visit(right, me=Party(Role.WORKER, "visitor-2")).refusal()[1].code is Code.NOT_ADMITTED
    visit(right).shake()


def test_px_1_one_answer_for_every_wrong_pass() -> None:
    """MC-2: nobody finds out which jobs there are, or whose pass it would have to be."""
    right = a_pass()
    for key_id in (right.id, replace(right.id, subject="job-9"), replace(right.id, expires=0), a_pass(Secrets(B)).id):
        pair = visit(right)
        pair.to_acceptor(Opening(VISITOR, key_id, bytes(32)).encode())
        answer = pair.acceptor.outgoing()
        assert len(answer) == 100
        with pytest.raises(HandshakeRefused) as caught:
            pair.to_acceptor(Proof(bytes(32)).encode())
        assert caught.value.code is Code.NOT_ADMITTED
        assert verdict_code(pair.acceptor.outgoing()) is Code.NOT_ADMITTED


def test_px_1_a_pass_that_has_expired_says_so() -> None:
    visit(a_pass(), wall_time=float(EXPIRES - 1)).shake()
    side, error = visit(a_pass(), wall_time=float(EXPIRES)).refusal()
    assert (side, error.code) == ("acceptor", Code.EXPIRED)
    assert "its pass ended 0 s ago" in str(error)


def test_a_replayed_visit_is_refused() -> None:
    pair = visit(a_pass())
    said = [pair.connector.outgoing()]
    pair.to_acceptor(said[0])
    pair.to_connector()
    said.append(pair.connector.outgoing())
    fresh = Acceptor(terms(WORKER, ring_of(WORKER), 77), preface(WORKER), Binding(tls=False), wall_time=WALL, deadline=DEADLINE)
    fresh.receive(said[0], NOW)
    with pytest.raises(HandshakeRefused) as caught:
        fresh.receive(said[1], NOW)
    assert caught.value.code is Code.NOT_ADMITTED


def test_px_3_nobody_becomes_a_member_by_a_pass() -> None:
    key, job_key = a_pass(), ring_of(WORKER).keys[0]
    for me in (VISITOR, DRIVER, Party(Role.WORKER, "another")):
        for host in (WORKER, NODE, HEAD):
            as_member = Pair(me, host, key=Key(job_key.id, key.material))
            assert as_member.refusal()[1].code is Code.NOT_ADMITTED


def test_px_3_nodes_and_the_head_have_no_visitors() -> None:
    for host in (NODE, HEAD):
        pair = Pair(VISITOR, host, key=a_pass(), acceptor_ring=SECRETS.keyring())
        assert pair.refusal()[1].code is Code.NOT_ADMITTED
        assert key_of_visitor(ring_of(host), a_pass().id, VISITOR.process_id) is None
    for me in (Party(Role.NODE, VISITOR.process_id), Party(Role.HEAD, VISITOR.process_id)):
        assert visit(a_pass(), me=me).refusal()[1].code is Code.NOT_ADMITTED


def test_px_3_who_holds_a_pass_accepts_nobody_with_it() -> None:
    """It is in no ring: who has stolen it cannot pose as the host before its visitor either."""
    pair = Pair(WORKER, VISITOR, key=a_pass(), acceptor_ring=ring_of(VISITOR, job=THEIR_JOB))
    assert pair.refusal()[1].code is Code.NOT_ADMITTED


def test_a_member_needs_no_pass_and_has_none() -> None:
    ring = ring_of(WORKER)
    key = pass_key(ring.keys[0], "worker-9", JOB, EXPIRES)
    assert key_of_visitor(ring, key.id, "worker-9") is None
    with pytest.raises(ValueError, match="not from a NODE key"):
        pass_key(SECRETS.keyring().pick(KeyKind.NODE), "v", "j", 1)


CERTIFICATES = [
    (f"job/{THEIR_JOB}", f"job/{JOB}", ""),
    (f"job/{JOB}", f"job/{JOB}", f"would have to name job/{THEIR_JOB}"),
    ("", f"job/{JOB}", f"would have to name job/{THEIR_JOB}"),
    ("node/visitor-1", f"job/{JOB}", f"would have to name job/{THEIR_JOB}"),
    (f"job/{THEIR_JOB}", f"job/{THEIR_JOB}", f"would have to name job/{JOB}"),
    (f"job/{THEIR_JOB}", "", f"would have to name job/{JOB}"),
]


@pytest.mark.parametrize(("mine", "theirs", "problem"), CERTIFICATES)
def test_rl_3_both_sides_show_the_certificate_of_their_job(mine: str, theirs: str, problem: str) -> None:
    names = [frozenset({name} if name else ()) for name in (mine, theirs)]
    one, other = bytes([1]) * 32, bytes([2]) * 32
    pair = visit(a_pass(), connector_binding=Binding(True, one, other, names[1]), acceptor_binding=Binding(True, other, one, names[0]))
    if not problem:
        pair.shake()
        return
    side, error = pair.refusal()
    assert error.code is Code.NOT_ADMITTED
    if theirs != f"job/{JOB}":
        assert side == "connector"
        assert problem in str(error)
    else:
        assert problem in pair.acceptor._problem, "for its log"


def test_one_in_between_is_found_out() -> None:
    """The fingerprints of both certificates are in the transcript, as in every challenge."""
    names = frozenset({f"job/{THEIR_JOB}", f"job/{JOB}"})
    mine = Binding(True, bytes([1]) * 32, bytes([9]) * 32, names)
    theirs = Binding(True, bytes([2]) * 32, bytes([9]) * 32, names)
    assert visit(a_pass(), connector_binding=mine, acceptor_binding=theirs).refusal()[1].code is Code.NOT_ADMITTED


STEPS = [Secrets(A), Secrets(A, B), Secrets(B, A), Secrets(B)]


@pytest.mark.parametrize(("given", "now"), list(product(range(4), range(4))))
def test_a_pass_lasts_as_long_as_its_secret_is_valid(given: int, now: int) -> None:
    """SC-1: whose pass is one step old still gets in; after two it asks for another."""
    pair = visit(a_pass(STEPS[given]), acceptor_ring=ring_of(WORKER, STEPS[now]))
    if STEPS[given].current in STEPS[now].valid():
        pair.shake()
    else:
        assert pair.refusal()[1].code is Code.NOT_ADMITTED
    assert len(issue(STEPS[given].keyring(), "v", "j", JOB, WALL)) == len(STEPS[given].valid())


def test_a_visitor_keeps_passes_for_half_their_time() -> None:
    book, key = PassBook(), a_pass()
    assert book.find(JOB, 0.0) is None
    book.enter(JOB, [key], 10.0)
    assert book.find(JOB, 10.0 + PASS_USED_S - 1) == key
    assert book.find("job-3", 10.0) is None
    assert book.find(JOB, 10.0 + PASS_USED_S) is None
    assert PASS_VALID_S - PASS_USED_S > 2 * 600, "clocks differ"


def test_of_a_pass_that_was_refused_the_next_is_taken() -> None:
    book, first, second = PassBook(), a_pass(), a_pass(Secrets(B))
    book.enter(JOB, [first, second], 0.0)
    book.refused(JOB, first)
    book.refused(JOB, first)
    book.refused("job-3", first)
    assert book.find(JOB, 0.0) == second
    book.refused(JOB, second)
    assert book.find(JOB, 0.0) is None


def test_a_visitor_keeps_no_more_passes_than_it_may() -> None:
    book, key = PassBook(jobs_max=2), a_pass()
    for job in ("a", "b"):
        book.enter(job, [key], 0.0)
    assert book.find("a", 0.0)
    book.enter("c", [key], 0.0)
    assert [book.find(job, 0.0) is not None for job in "abc"] == [True, False, True]


def test_who_is_given_a_pass() -> None:
    assert refusal("a", "b", has_driver=True, actors=0) == ""
    assert refusal("a", "b", has_driver=False, actors=1) == ""
    assert "job b is over" in refusal("a", "b", has_driver=False, actors=0)
    assert "needs none" in refusal("a", "a", has_driver=True, actors=1)
    assert "no job" in refusal("", "b", has_driver=True, actors=1)


def test_a_ring_without_the_root_of_jobs_gives_none() -> None:
    assert issue(Keyring(), "v", "j", JOB, WALL) == []
