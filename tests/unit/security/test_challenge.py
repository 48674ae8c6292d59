"""The challenge: who gets in, and everything that must not."""

from dataclasses import replace

import pytest

from actorflow._core.security import challenge
from actorflow._core.security.challenge import BARE, NO_CERTIFICATE, Acceptor, Binding, Connector, Expected
from actorflow._core.security.errors import Code, HandshakeRefused
from actorflow._core.security.fences import Fences
from actorflow._core.security.keys import Keyring
from actorflow._core.security.roles import MAY_ACCEPT, MAY_CONNECT, ROOT_KINDS, KeyKind, Role
from actorflow._core.security.secret import Secrets
from actorflow._core.security.tokens import SpentTokens, make_token
from actorflow._core.security.wire import (
    ACCEPTED_BYTES_MAX,
    ANSWER_BYTES,
    OPENING_BYTES,
    PROOF_BYTES,
    VERDICT_BYTES,
    Answer,
    Opening,
    Party,
    Preface,
    Proof,
    Verdict,
)
from tests.unit.security.harness import (
    DEADLINE,
    DRIVER,
    EVERY_ROLE,
    HEAD,
    JOB,
    NODE,
    NODE_2,
    NOW,
    PROTOCOL,
    SECRETS,
    WALL,
    WORKER,
    WORKER_2,
    A,
    B,
    Pair,
    key_for,
    preface,
    randomness,
    ring_of,
    terms,
    verdict_code,
)

FP_1, FP_2, FP_3 = (bytes([number]) * 32 for number in (1, 2, 3))
RING = SECRETS.keyring()


def names(*them: str) -> frozenset[str]:
    return frozenset(them)


# Who gets in ----------------------------------------------------------------------------------------------------------

AMONG_NODES = [(NODE, NODE_2), (NODE, HEAD), (HEAD, NODE)]
IN_A_JOB = [(WORKER, WORKER_2), (WORKER, NODE), (DRIVER, WORKER), (WORKER, DRIVER), (DRIVER, HEAD)]
FRIENDS = AMONG_NODES + IN_A_JOB


@pytest.mark.parametrize(("connector", "acceptor"), FRIENDS, ids=lambda party: party.role.name.lower())
def test_both_sides_learn_who_the_other_is(connector: Party, acceptor: Party) -> None:
    pair = Pair(connector, acceptor)
    pair.shake()
    assert pair.connector.done and pair.acceptor.done
    assert pair.acceptor.peer is not None and pair.connector.peer is not None
    assert pair.acceptor.peer.party == connector
    assert pair.connector.peer.party == acceptor
    assert pair.acceptor.peer.key_id == pair.connector.peer.key_id
    assert pair.acceptor.peer.channel_id == pair.connector.peer.channel_id
    assert pair.connector.outgoing() == pair.acceptor.outgoing() == b""


def test_what_comes_after_the_handshake_is_handed_on() -> None:
    pair = Pair()
    pair.to_acceptor()
    pair.to_connector()
    assert pair.connector.may_send and not pair.connector.done
    assert pair.to_acceptor(pair.connector.outgoing() + b"hello") == b"hello"
    assert pair.to_connector(pair.acceptor.outgoing() + b"welcome") == b"welcome"
    assert pair.to_acceptor(b"more") == pair.to_connector(b"more") == b"more"
    pair.connector.check(DEADLINE + 1)
    pair.acceptor.check(DEADLINE + 1)


def test_each_connection_is_another_channel() -> None:
    """Two handshakes of the same two have nothing in common that an observer could use."""
    seen = set()
    for seed in range(5):
        pair = Pair(connector_more={"fences": Fences()})
        pair.connector = Connector(
            terms(NODE, Keyring(keys=(key_for(NODE, NODE_2),)), seed), key_for(NODE, NODE_2), preface(NODE_2), BARE, Expected(EVERY_ROLE),
            deadline=DEADLINE,
        )  # fmt: skip
        pair.shake()
        assert pair.acceptor.peer is not None
        seen.add(pair.acceptor.peer.channel_id)
    assert len(seen) == 5


def test_the_sizes_are_what_the_documents_say() -> None:
    assert (OPENING_BYTES, ANSWER_BYTES, PROOF_BYTES, VERDICT_BYTES) == (116, 100, 36, 24)
    assert ACCEPTED_BYTES_MAX == 216 <= 256


# Cut, longer, out of turn ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", range(1, OPENING_BYTES))
def test_every_message_may_come_in_two_pieces(split: int) -> None:
    pair = Pair()
    for give, take in ((pair.connector, pair.acceptor), (pair.acceptor, pair.connector)) * 2:
        data = give.outgoing()
        assert take.receive(data[:split], NOW) == b""
        assert take.held == (split if split < len(data) else 0)
        assert take.receive(data[split:], NOW) == b""
    assert pair.connector.done and pair.acceptor.done


def test_every_message_may_come_byte_by_byte() -> None:
    pair = Pair()
    for give, take in ((pair.connector, pair.acceptor), (pair.acceptor, pair.connector)) * 2:
        for byte in give.outgoing():
            assert not take.done
            take.receive(bytes([byte]), NOW)
    assert pair.connector.done and pair.acceptor.done


@pytest.mark.parametrize("missing", [1, 50, OPENING_BYTES])
def test_a_message_that_is_cut_is_waited_for_until_the_deadline(missing: int) -> None:
    pair = Pair()
    pair.to_acceptor(pair.connector.outgoing()[:-missing])
    pair.acceptor.check(DEADLINE - 0.001)
    with pytest.raises(HandshakeRefused, match="the opening did not come in time") as caught:
        pair.acceptor.check(DEADLINE)
    assert caught.value.code is Code.TIMEOUT
    assert verdict_code(pair.acceptor.outgoing()) is Code.TIMEOUT
    assert pair.acceptor.held == 0


def test_every_stage_has_the_deadline() -> None:
    pair = Pair()
    pair.to_acceptor()
    for side, what in ((pair.acceptor, "the proof of node node-1"), (pair.connector, "the answer")):
        with pytest.raises(HandshakeRefused, match=what):
            side.check(DEADLINE)
    pair = Pair()
    pair.to_acceptor()
    pair.to_connector()
    with pytest.raises(HandshakeRefused, match="the verdict did not come in time"):
        pair.connector.receive(Verdict(Code.ADMITTED, PROTOCOL, WALL).encode(), DEADLINE)


@pytest.mark.parametrize("extra", [b"\0", b"\xa3", bytes(10_000)], ids=len)
def test_a_byte_out_of_turn_ends_it(extra: bytes) -> None:
    """MC-3."""
    pair = Pair()
    with pytest.raises(HandshakeRefused, match="out of turn") as caught:
        pair.to_acceptor(pair.connector.outgoing() + extra)
    assert caught.value.code is Code.MALFORMED
    assert verdict_code(pair.acceptor.outgoing()) is Code.MALFORMED, "and no answer"
    pair = Pair()
    pair.to_acceptor()
    with pytest.raises(HandshakeRefused, match="out of turn"):
        pair.to_connector(pair.acceptor.outgoing() + extra)
    assert not pair.connector.may_send


def test_messages_in_a_wrong_order_are_refused() -> None:
    opening, answer = Opening(NODE, key_for(NODE, NODE_2).id, bytes(32)).encode(), Answer(NODE_2, bytes(32)).encode()
    proof = Proof(bytes(32)).encode()
    for message in (answer, proof, Verdict(0, PROTOCOL, WALL).encode(), b"GET / HTTP/1.1", b"\x16\x03\x01", b"\x80\x04\x95"):
        pair = Pair()
        with pytest.raises(HandshakeRefused, match="the opening was expected") as caught:
            pair.to_acceptor(message)
        assert caught.value.code is Code.MALFORMED
    for message in (opening, proof, b"HTTP/1.1 400"):
        pair = Pair()
        with pytest.raises(HandshakeRefused, match="the answer was expected"):
            pair.to_connector(message)
    pair = Pair()
    pair.to_acceptor()
    with pytest.raises(HandshakeRefused, match=r"the proof of node node-1 \(incarnation 1\) was expected"):
        pair.to_acceptor(opening)


def test_a_second_answer_is_refused() -> None:
    pair = Pair()
    pair.to_acceptor()
    answer = pair.acceptor.outgoing()
    pair.to_connector(answer)
    with pytest.raises(HandshakeRefused, match="the verdict was expected"):
        pair.to_connector(answer)


def test_an_error_ends_it() -> None:
    """MC-5."""
    pair = Pair()
    with pytest.raises(HandshakeRefused) as first:
        pair.to_acceptor(b"x")
    for data in (b"", pair.connector.outgoing()):
        with pytest.raises(HandshakeRefused) as again:
            pair.to_acceptor(data)
        assert again.value is first.value


# Wrong keys ------------------------------------------------------------------------------------------------------------


def test_a_wrong_secret_is_noticed_by_who_calls() -> None:
    side, error = Pair(key=Secrets(B).keyring().pick(KeyKind.NODE)).refusal()
    assert side == "connector"
    assert error.code is Code.NOT_ADMITTED
    assert "has not proven that it is of this cluster" in str(error)


def test_who_calls_without_the_secret_learns_nothing_and_is_refused() -> None:
    """One who goes on where an honest connector would stop, with a key it has made up."""
    for key_id in (key_for(NODE, NODE_2).id, Secrets(B).keyring().pick(KeyKind.NODE).id):
        pair = Pair()
        pair.to_acceptor(Opening(NODE, key_id, bytes(32)).encode())
        assert len(pair.acceptor.outgoing()) == ANSWER_BYTES
        with pytest.raises(HandshakeRefused) as caught:
            pair.to_acceptor(Proof(bytes(32)).encode())
        assert caught.value.code is Code.NOT_ADMITTED
        assert verdict_code(pair.acceptor.outgoing()) is Code.NOT_ADMITTED


@pytest.mark.parametrize("acceptor", [Secrets(A), Secrets(A, B), Secrets(B, A), Secrets(B)], ids=["A", "AB", "BA", "B"])
@pytest.mark.parametrize("connector", [Secrets(A), Secrets(A, B), Secrets(B, A), Secrets(B)], ids=["A", "AB", "BA", "B"])
def test_a_rotation_in_every_combination(connector: Secrets, acceptor: Secrets) -> None:
    """A process connects with the secret in use, and accepts both."""
    pair = Pair(key=connector.keyring().pick(KeyKind.NODE), acceptor_ring=acceptor.keyring())
    if connector.current in acceptor.valid():
        pair.shake()
    else:
        assert pair.refusal()[1].code is Code.NOT_ADMITTED


def test_a_ring_that_is_replaced_counts_from_the_next_handshake_on() -> None:
    mine = terms(NODE_2, Secrets(B).keyring())
    key = key_for(NODE, NODE_2)

    def attempt() -> None:
        pair = Pair(key=key)
        pair.acceptor = Acceptor(mine, preface(NODE_2), BARE, wall_time=WALL, deadline=DEADLINE)
        pair.shake()

    with pytest.raises(HandshakeRefused):
        attempt()
    mine.keyring = Secrets(B, A).keyring()
    attempt()


@pytest.mark.parametrize("acceptor", [WORKER_2, NODE, HEAD], ids=str)
def test_a_key_of_a_job_is_good_for_that_job_only(acceptor: Party) -> None:
    """RL-1."""
    other = RING.for_job("job-2").keys[0]
    if acceptor.role is Role.WORKER:
        assert Pair(WORKER, acceptor, key=other).refusal()[1].code is Code.NOT_ADMITTED
    # One that says it is of another job than its key.
    forged = replace(other, id=RING.pick(KeyKind.JOB, JOB).id)
    assert Pair(WORKER, acceptor, key=forged).refusal()[1].code is Code.NOT_ADMITTED


@pytest.mark.parametrize("role", [Role.NODE, Role.HEAD])
@pytest.mark.parametrize("acceptor", [NODE_2, HEAD, WORKER_2], ids=str)
def test_a_key_of_a_job_makes_no_node(role: Role, acceptor: Party) -> None:
    """RL-1: neither with its own id nor with that of the key of nodes. And nothing is proven to such a one (MC-2)."""
    key = RING.for_job(JOB).keys[0]
    me = Party(role, "worker-1")
    side, error = Pair(me, acceptor, key=key).refusal()
    assert (side, error.code) == ("connector", Code.NOT_ADMITTED)
    pair = Pair(me, acceptor, key=replace(key, id=RING.pick(KeyKind.NODE).id))
    assert pair.refusal()[1].code is Code.NOT_ADMITTED


@pytest.mark.parametrize("kind", ROOT_KINDS)
@pytest.mark.parametrize("connector", Role)
@pytest.mark.parametrize("acceptor", Role)
def test_every_kind_of_key_admits_the_roles_in_its_row_only(kind: KeyKind, connector: Role, acceptor: Role) -> None:
    """MC-1, with rings that have every key, so that only the roles decide; whoever refuses, both sides end without a peer."""
    key = RING.pick(kind, "" if kind is KeyKind.NODE else "s")
    pair = Pair(Party(connector, "c"), Party(acceptor, "a"), key=key, acceptor_ring=RING)
    if connector in MAY_CONNECT[kind] and acceptor in MAY_ACCEPT[kind]:
        pair.shake()
    else:
        assert pair.refusal()[1].code is Code.NOT_ADMITTED


def test_a_client_token_does_not_join_and_a_join_token_is_no_client() -> None:
    roots = {root.kind: root for root in RING.roots}
    join, client = (make_token(roots[kind], b"", wall_time=WALL, random_bytes=randomness()) for kind in (KeyKind.JOIN, KeyKind.CLIENT))
    Pair(NODE, HEAD, key=join.key).shake()
    Pair(DRIVER, HEAD, key=client.key).shake()
    assert Pair(DRIVER, NODE, key=client.key).refusal()[1].code is Code.NOT_ADMITTED, "only the head lets a driver in"
    for party, token in ((NODE, client), (DRIVER, join), (WORKER, client), (WORKER, join), (HEAD, join)):
        assert Pair(party, HEAD if party is not HEAD else NODE, key=token.key).refusal()[1].code is Code.NOT_ADMITTED
    assert Pair(NODE, NODE_2, key=join.key).refusal()[1].code is Code.NOT_ADMITTED, "only the head lets a node join"


def test_one_answer_for_whatever_is_wrong() -> None:
    """MC-2: an attacker that tries ids and roles sees the same sizes and the same code, at the same moments."""
    known = RING.pick(KeyKind.NODE)
    wrong = [
        Opening(NODE, known.id, bytes(32)),
        Opening(WORKER, known.id, bytes(32)),
        Opening(HEAD, RING.pick(KeyKind.JOB, JOB).id, bytes(32)),
        Opening(NODE, Secrets(B).keyring().pick(KeyKind.NODE).id, bytes(32)),
        Opening(NODE, RING.pick(KeyKind.JOIN, "t").id, bytes(32)),
        Opening(DRIVER, RING.pick(KeyKind.CLIENT, "t").id, bytes(32)),
        Opening(NODE_2, known.id, bytes(32)),
    ]
    seen = set()
    for opening in wrong:
        pair = Pair()
        pair.to_acceptor(opening.encode())
        answer = pair.acceptor.outgoing()
        with pytest.raises(HandshakeRefused) as caught:
            pair.to_acceptor(Proof(bytes(32)).encode())
        assert str(caught.value)
        seen.add((len(answer), answer[:-64], pair.acceptor.outgoing()))
    assert len(seen) == 1


# Replay, reflection, in between ----------------------------------------------------------------------------------------


def test_a_replayed_handshake_is_refused() -> None:
    """What an honest connector has said, word for word, to an acceptor that draws another nonce."""
    honest = Pair()
    opening = honest.connector.outgoing()
    honest.to_acceptor(opening)
    honest.to_connector()
    proof = honest.connector.outgoing()
    honest.to_acceptor(proof)
    assert honest.acceptor.done
    for seed in range(3):
        again = Acceptor(terms(NODE_2, ring_of(NODE_2), 50 + seed), preface(NODE_2), BARE, wall_time=WALL, deadline=DEADLINE)
        again.receive(opening, NOW)
        with pytest.raises(HandshakeRefused) as caught:
            again.receive(proof, NOW)
        assert caught.value.code is Code.NOT_ADMITTED


def test_a_replayed_answer_is_refused() -> None:
    honest = Pair()
    honest.to_acceptor()
    answer = honest.acceptor.outgoing()
    other = Connector(
        terms(NODE, Keyring(), 77), key_for(NODE, NODE_2), preface(NODE_2), BARE, Expected(EVERY_ROLE), deadline=DEADLINE
    )
    other.outgoing()
    with pytest.raises(HandshakeRefused) as caught:
        other.receive(answer, NOW)
    assert caught.value.code is Code.NOT_ADMITTED
    assert other.outgoing() == b"", "it proves nothing to such a one"


def test_reflection_of_the_acceptors_own_proof_is_refused() -> None:
    """The label of the side is in each MAC: the answer's is no proof."""
    pair = Pair()
    pair.to_acceptor()
    answer = Answer.decode(pair.acceptor.outgoing())
    with pytest.raises(HandshakeRefused) as caught:
        pair.to_acceptor(Proof(answer.mac).encode())
    assert caught.value.code is Code.NOT_ADMITTED


def test_no_label_is_the_beginning_of_another() -> None:
    labels = [challenge._ACCEPTOR, challenge._CONNECTOR, challenge._CHANNEL]
    assert not any(one.startswith(other) for one in labels for other in labels if one is not other)
    assert len(set(labels)) == 3


def test_who_knows_of_no_key_is_answered_with_a_random_one() -> None:
    """MC-2: not with a key that a stranger could guess."""
    drawn: list[bytes] = []
    pair = Pair()

    def random_bytes(size: int) -> bytes:
        drawn.append(randomness(len(drawn))(size))
        return drawn[-1]

    theirs = replace(terms(NODE_2, ring_of(NODE_2)), random_bytes=random_bytes)
    acceptor = Acceptor(theirs, preface(NODE_2), BARE, wall_time=WALL, deadline=DEADLINE)
    opening = Opening(NODE, Secrets(B).keyring().pick(KeyKind.NODE).id, bytes(32)).encode()
    acceptor.receive(opening, NOW)
    answer = acceptor.outgoing()
    transcript = pair.acceptor._transcript(opening, answer, NO_CERTIFICATE, NO_CERTIFICATE)
    guesses = [bytes(32), b"", *drawn[1:]]
    assert Answer.decode(answer).mac not in [challenge._mac(guess, challenge._ACCEPTOR, transcript) for guess in guesses]
    assert Answer.decode(answer).mac == challenge._mac(drawn[0], challenge._ACCEPTOR, transcript)


def test_a_process_is_not_made_to_talk_with_itself() -> None:
    """An attacker that is called by node-1 calls node-1, and passes everything on."""
    own = key_for(NODE, NODE_2)
    for target in (NODE_2, NODE):
        first = preface(target)
        caller = Connector(terms(NODE, Keyring(), 1), own, first, BARE, Expected(EVERY_ROLE), deadline=DEADLINE)
        called = Acceptor(terms(NODE, ring_of(NODE), 2), first, BARE, wall_time=WALL, deadline=DEADLINE)
        called.receive(caller.outgoing(), NOW)
        with pytest.raises(HandshakeRefused):
            caller.receive(called.outgoing(), NOW)
        assert "our own words came back" in str(called.closed())


class Careless(Acceptor):
    """One that does not see who it speaks with."""

    __slots__ = ()

    def _problem_with(self, opening: Opening, key: object) -> str:
        return ""


def test_an_answer_of_ourselves_is_refused_even_with_a_right_proof() -> None:
    pair = Pair(NODE, NODE_2)
    pair.acceptor = Careless(terms(NODE, ring_of(NODE), 3), preface(NODE_2), BARE, wall_time=WALL, deadline=DEADLINE)
    side, error = pair.refusal()
    assert (side, error.code) == ("connector", Code.NOT_ADMITTED)
    assert "it says that it is us" in str(error)


def test_swapped_roles_are_refused() -> None:
    """An opening of another role than the one that the key was proven for: the role is in the transcript."""
    pair = Pair(WORKER, NODE)
    opening = bytearray(pair.connector.outgoing())
    opening[1] = Role.DRIVER
    pair.to_acceptor(bytes(opening))
    with pytest.raises(HandshakeRefused):
        pair.to_connector()
    pair = Pair(WORKER, NODE)
    pair.to_acceptor()
    answer = bytearray(pair.acceptor.outgoing())
    answer[1] = Role.HEAD
    with pytest.raises(HandshakeRefused) as caught:
        pair.to_connector(bytes(answer))
    assert caught.value.code is Code.NOT_ADMITTED


@pytest.mark.parametrize("message", [0, 1, 2])
def test_every_bit_of_every_message_counts(message: int) -> None:
    """One bit turned over on the way: nobody is admitted who has said something else."""
    size = (OPENING_BYTES, ANSWER_BYTES, PROOF_BYTES)[message]
    for at in range(size):
        pair = Pair()
        with pytest.raises(HandshakeRefused):
            for number, (give, take) in enumerate(((pair.connector, pair.acceptor), (pair.acceptor, pair.connector)) * 2):
                data = bytearray(give.outgoing())
                if number == message:
                    data[at] ^= 1 << at % 8
                take.receive(bytes(data), NOW)
                take.check(DEADLINE if take.held else NOW)
        assert not pair.acceptor.done


@pytest.mark.parametrize("changed", [{"wall_time": WALL + 1}, {"target": "node-3"}, {"protocol_version": PROTOCOL + 1}], ids=str)
def test_a_preface_that_was_changed_on_the_way_is_noticed(changed: dict[str, object]) -> None:
    pair = Pair()
    other = replace(preface(NODE_2), **changed)  # type: ignore[arg-type]
    pair.acceptor = Acceptor(terms(NODE_2, ring_of(NODE_2), 2), other, BARE, wall_time=WALL, deadline=DEADLINE)
    assert pair.refusal()[1].code is Code.NOT_ADMITTED


# Certificates ----------------------------------------------------------------------------------------------------------


def bindings(connector: str = "node/node-1", acceptor: str = "node/node-2") -> dict[str, Binding]:
    """Both views of one TLS connection; the texts are the names in the certificates, empty for none shown."""
    fp_1 = FP_1 if connector else NO_CERTIFICATE
    return {
        "connector_binding": Binding(True, fp_1, FP_2, names(acceptor)),
        "acceptor_binding": Binding(True, FP_2, fp_1, names(*([connector] if connector else []))),
    }


def test_nodes_know_one_another_by_certificate_and_key() -> None:
    Pair(**bindings()).shake()


@pytest.mark.parametrize("view", ["connector_binding", "acceptor_binding"])
@pytest.mark.parametrize("which", ["own", "peer"])
def test_another_fingerprint_than_the_other_side_sees_is_refused(view: str, which: str) -> None:
    """Somebody in between has ended TLS with another certificate of the same authority."""
    both = bindings()
    both[view] = replace(both[view], **{which: FP_3})
    assert Pair(**both).refusal()[1].code is Code.NOT_ADMITTED


def test_swapped_fingerprints_are_refused() -> None:
    both = bindings()
    own, peer = both["acceptor_binding"].own, both["acceptor_binding"].peer
    both["acceptor_binding"] = replace(both["acceptor_binding"], own=peer, peer=own)
    assert Pair(**both).refusal()[1].code is Code.NOT_ADMITTED


@pytest.mark.parametrize("shown", ["", "node/node-9", "job/job-1", "head/node-1"])
def test_the_key_of_nodes_is_not_enough_without_the_certificate_of_this_node(shown: str) -> None:
    """RL-2."""
    assert Pair(**bindings(connector=shown)).refusal()[1].code is Code.NOT_ADMITTED


@pytest.mark.parametrize("shown", ["node/node-9", "job/job-1", "head/node-2"])
def test_who_accepts_as_a_node_shows_the_certificate_of_this_node(shown: str) -> None:
    side, error = Pair(**bindings(acceptor=shown)).refusal()
    assert side == "connector"
    assert f"its certificate would have to name node/node-2, and names {shown}" in str(error)


def test_a_worker_that_poses_as_a_node_before_its_own_job_is_found_out() -> None:
    """It has the key of the job, and the certificate of the job, and stands between a worker and the node."""
    pair = Pair(WORKER, NODE, **bindings("", "job/job-1"))
    side, error = pair.refusal()
    assert side == "connector"
    assert "would have to name node/node-1" in str(error)


def test_a_certificate_of_another_job_is_refused() -> None:
    Pair(WORKER, WORKER_2, **bindings("job/job-1", "job/job-1")).shake()
    Pair(DRIVER, WORKER_2, **bindings("", "job/job-1")).shake()
    assert Pair(WORKER, WORKER_2, **bindings("job/job-2", "job/job-1")).refusal()[1].code is Code.NOT_ADMITTED
    assert Pair(WORKER, WORKER_2, **bindings("job/job-1", "job/job-2")).refusal()[0] == "connector"


def test_a_node_that_joins_has_no_certificate_yet() -> None:
    key = RING.pick(KeyKind.JOIN, "t")
    Pair(NODE, HEAD, key=key, **bindings("", "head/head-0")).shake()
    assert Pair(NODE, HEAD, key=key, **bindings("", "node/node-2")).refusal()[0] == "connector"


def test_the_preface_and_the_connection_agree_about_tls() -> None:
    with pytest.raises(ValueError, match="do not agree"):
        Pair(connector_binding=BARE, acceptor_binding=Binding(True))


# Targets, expectations, fences, tokens ---------------------------------------------------------------------------------


def test_a_process_is_called_by_its_id_or_by_a_name_that_it_has() -> None:
    for target, ok in (("node-2", True), ("head", True), ("", True), ("node-3", False), ("node-1", False)):
        pair = Pair(preface=preface(target), acceptor_more={"targets": frozenset({"", "head"})})
        if ok:
            pair.shake()
        else:
            assert pair.refusal()[1].code is Code.NOT_ADMITTED
    assert Pair(preface=preface("")).refusal()[1].code is Code.NOT_ADMITTED


EXPECTATIONS = [
    (Expected(frozenset({Role.HEAD})), "we expected a head"),
    (Expected(frozenset({Role.WORKER, Role.HEAD})), "we expected a head or worker"),
    (Expected(EVERY_ROLE, "node-3"), "we expected process node-3"),
    (Expected(EVERY_ROLE, "node-2", 2), "we expected incarnation 2 or a later one"),
]


@pytest.mark.parametrize(("expected", "why"), EXPECTATIONS)
def test_another_process_than_expected_is_not_spoken_with(expected: Expected, why: str) -> None:
    side, error = Pair(expected=expected).refusal()
    assert side == "connector"
    assert error.code is Code.NOT_ADMITTED
    assert why in str(error)
    Pair(expected=Expected(frozenset({Role.NODE}), "node-2", 1)).shake()


def test_an_old_incarnation_is_fenced_and_told_so() -> None:
    """MC-4. It has the key, so it may know."""
    fences = Fences()
    fences.raise_to("node-1", 2)
    pair = Pair(acceptor_more={"fences": fences})
    pair.to_acceptor()
    pair.to_connector()
    with pytest.raises(HandshakeRefused) as caught:
        pair.to_acceptor()
    assert caught.value.code is Code.FENCED
    with pytest.raises(HandshakeRefused, match="has to join again as a new one") as told:
        pair.to_connector()
    assert told.value.code is Code.FENCED
    assert told.value.told, "the acceptor had proven itself: it may be believed"
    Pair(replace(NODE, incarnation=2), acceptor_more={"fences": fences}).shake()


def test_an_old_incarnation_that_answers_is_not_spoken_with() -> None:
    """MC-4."""
    fences = Fences()
    fences.remove("node-2")
    side, error = Pair(connector_more={"fences": fences}).refusal()
    assert (side, error.code) == ("connector", Code.FENCED)
    assert not error.told


def test_a_verdict_from_one_who_has_proven_nothing_is_not_believed() -> None:
    """Anybody in between can say that we were fenced, in the open or instead of an answer."""
    pair = Pair()
    with pytest.raises(HandshakeRefused) as caught:
        pair.to_connector(Verdict(Code.FENCED, PROTOCOL, WALL).encode())
    assert caught.value.code is Code.FENCED
    assert not caught.value.told


def test_an_incarnation_cannot_be_claimed_on_the_way() -> None:
    """It is in the transcript."""
    pair = Pair()
    opening = Opening.decode(pair.connector.outgoing())
    pair.to_acceptor(replace(opening, party=replace(NODE, incarnation=9)).encode())
    with pytest.raises(HandshakeRefused):
        pair.to_connector()


def test_a_token_that_has_ended_is_told_so() -> None:
    root = next(root for root in RING.roots if root.kind is KeyKind.JOIN)
    token = make_token(root, b"", wall_time=WALL, random_bytes=randomness(), valid_s=60.0)
    Pair(NODE, HEAD, key=token.key, wall_time=WALL + 59).shake()
    pair = Pair(NODE, HEAD, key=token.key, wall_time=WALL + 60)
    side, error = pair.refusal()
    assert (side, error.code) == ("acceptor", Code.EXPIRED)
    with pytest.raises(HandshakeRefused, match="the token has expired"):
        pair.to_connector()


def test_the_end_of_a_token_cannot_be_moved() -> None:
    """TK-1: with another end it is another key."""
    root = next(root for root in RING.roots if root.kind is KeyKind.JOIN)
    token = make_token(root, b"", wall_time=WALL, random_bytes=randomness(), valid_s=60.0, single_use=True)
    for changed in ({"expires": 0}, {"expires": token.key.id.expires + 1}, {"single_use": False}):
        forged = replace(token.key, id=replace(token.key.id, **changed))  # type: ignore[arg-type]
        assert Pair(NODE, HEAD, key=forged).refusal()[1].code is Code.NOT_ADMITTED


def test_a_token_for_a_single_use_lets_one_in() -> None:
    root = next(root for root in RING.roots if root.kind is KeyKind.JOIN)
    token = make_token(root, b"", wall_time=WALL, random_bytes=randomness(), valid_s=60.0, single_use=True)
    spent = SpentTokens()
    Pair(NODE, HEAD, key=token.key, acceptor_more={"spent": spent}).shake()
    pair = Pair(NODE_2, HEAD, key=token.key, acceptor_more={"spent": spent})
    side, error = pair.refusal()
    assert (side, error.code) == ("acceptor", Code.SPENT)


def test_a_wrong_proof_spends_no_token() -> None:
    root = next(root for root in RING.roots if root.kind is KeyKind.JOIN)
    token = make_token(root, b"", wall_time=WALL, random_bytes=randomness(), valid_s=60.0, single_use=True)
    spent = SpentTokens()
    pair = Pair(NODE, HEAD, key=token.key, acceptor_more={"spent": spent})
    pair.to_acceptor()
    with pytest.raises(HandshakeRefused):
        pair.to_acceptor(Proof(bytes(32)).encode())
    assert spent.rows() == []


# What is told ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.ADMITTED])
def test_a_verdict_may_come_instead_of_the_answer_or_after_the_proof(code: Code) -> None:
    for proven in (False, True):
        pair = Pair()
        if proven:
            pair.to_acceptor()
            pair.to_connector()
        with pytest.raises(HandshakeRefused) as caught:
            pair.to_connector(Verdict(code, PROTOCOL + 1, WALL + 1000).encode())
        assert caught.value.code is code
        assert not pair.connector.done


def test_a_verdict_that_admits_before_anything_is_proven_is_refused() -> None:
    pair = Pair()
    with pytest.raises(HandshakeRefused) as caught:
        pair.to_connector(Verdict(Code.ADMITTED, PROTOCOL, WALL).encode())
    assert caught.value.code is Code.MALFORMED
    assert not pair.connector.may_send


def test_a_verdict_with_a_damaged_beginning_is_refused() -> None:
    """Found by fuzzing: its size went by its first byte, and what it is by the first six."""
    data = bytearray(Verdict(Code.BUSY, PROTOCOL, WALL).encode())
    data[5] ^= 4
    pair = Pair()
    with pytest.raises(HandshakeRefused, match="the verdict has a wrong tag") as caught:
        pair.to_connector(bytes(data))
    assert caught.value.code is Code.MALFORMED


@pytest.mark.parametrize("message", [Preface, Opening, Answer, Proof, Verdict])
def test_a_message_of_another_size_is_refused(message: type[Opening]) -> None:
    """WI-1."""
    for size in (0, 1, 23, 25, 37, 65, 101, 117):
        with pytest.raises(HandshakeRefused, match=f"a message has {size} bytes, not"):
            message.decode(bytes(size))


def test_a_connection_that_ends_in_the_middle_says_where() -> None:
    pair = Pair()
    assert str(pair.acceptor.closed()) == "closed when the opening was expected; a probe, or a peer that gave up"
    pair.to_acceptor()
    assert str(pair.acceptor.closed()).startswith("closed when the proof of node node-1 (incarnation 1) was expected; it may hold another")
    assert str(pair.connector.closed()).startswith("closed when the answer was expected")
    assert pair.acceptor.closed().cut
    assert pair.connector.closed().cut
    pair = Pair(WORKER, NODE_2, key=replace(key_for(WORKER, NODE_2), id=RING.pick(KeyKind.NODE).id))
    pair.to_acceptor()
    assert "a NODE key does not make a worker" in str(pair.acceptor.closed())
