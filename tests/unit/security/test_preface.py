"""The first bytes at both ends, and who is told what when they are wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.security.errors import Code, HandshakeRefused
from actorflow._core.security.preface import CLOCK_SKEW_S_MAX, PrefaceReader, PrefaceReply, describe_foreign, verdict_text
from actorflow._core.security.wire import MAGIC, PREFACE_BYTES, VERDICT_BYTES, VERDICT_MAGIC, Preface, Verdict
from tests.unit.security.harness import DEADLINE, NOW, PROTOCOL, WALL, preface, unpickled, verdict_code

GOOD = preface("worker-1", tls=True)


def reader(**others: object) -> PrefaceReader:
    options = {"protocol_version": PROTOCOL, "wall_time": WALL, "deadline": DEADLINE, "plain_allowed": False, **others}
    return PrefaceReader(**options)  # type: ignore[arg-type]


def refusal(data: bytes, **others: object) -> tuple[HandshakeRefused, bytes]:
    """How `data` is refused, and what is answered; it is refused again at whatever follows."""
    port = reader(**others)
    with pytest.raises(HandshakeRefused) as caught:
        port.receive(data, NOW)
    answer = port.outgoing()
    assert port.outgoing() == b""
    assert port.preface is None and port.held == 0
    with pytest.raises(HandshakeRefused) as again:
        port.receive(GOOD.encode(), NOW)
    assert again.value is caught.value
    return caught.value, answer


# The node that owns the port -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["", "head", "node-1", "x" * 24])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_preface_names_its_target(target: str, size: int) -> None:
    port, sent = reader(), preface(target, tls=True)
    data = sent.encode()
    assert len(data) == PREFACE_BYTES == 64
    for at in range(0, 64, size):
        assert port.preface is None
        assert port.wanted == 64 - at
        assert port.receive(data[at : at + size], NOW) == b""
    assert port.preface == sent
    assert (port.wanted, port.held, port.outgoing()) == (0, 0, b"")


def test_what_follows_the_preface_is_for_the_target() -> None:
    port = reader()
    assert port.receive(GOOD.encode() + b"\x16\x03\x01", NOW) == b"\x16\x03\x01"
    assert port.preface == GOOD
    assert port.receive(b"more", NOW) == b"more"


FOREIGN = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "it speaks HTTP"),
    "HTTP, a post": (b"POST /api/jobs HTTP/1.1\r\n", "it speaks HTTP"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "it speaks HTTP"),
    "TLS to plain": (bytes.fromhex("16030100c8010000c4"), "it speaks TLS at once"),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", "it speaks SSH"),
    "random bytes": (bytes(range(200, 256)), "it begins with c8 c9 ca cb"),
    "a page": (b"<!DOCTYPE HTML>\n<html>", "it begins with '<!DOCTYPE HTML>\\n', as a page of a web server does"),
    "a greeting": (b"220 mail.example.org ESMTP", "it begins with '220 mail.example'"),
    "zeros": (bytes(64), "it begins with 00 00"),
    "one byte": (b"\n", "it begins with 0a"),
    "the text part of our magic": (MAGIC[1:] + bytes(64), "it begins with 41 46 4c 4f 57 0d 0a 00"),
    "line ends turned around": (MAGIC.replace(b"\r\n", b"\n") + bytes(64), "it begins with af 41"),
}


@pytest.mark.parametrize(("data", "why"), FOREIGN.values(), ids=FOREIGN)
def test_other_protocols_are_recognised_and_get_no_answer(data: bytes, why: str) -> None:
    """PF-2."""
    error, answer = refusal(data)
    assert error.code is Code.MALFORMED
    assert f"refused a connection: {why}" in str(error)
    assert answer == b""


def test_the_first_wrong_byte_is_enough() -> None:
    """PF-2: nobody has to send 64 bytes to be refused."""
    for right in range(len(MAGIC)):
        port = reader()
        port.receive(MAGIC[:right], NOW)
        with pytest.raises(HandshakeRefused):
            port.receive(bytes([MAGIC[right] ^ 1]), NOW)


@pytest.mark.parametrize("handshake", [0, 2, 65535])
def test_another_version_of_the_handshake_gets_a_clear_answer(handshake: int) -> None:
    """Whatever the rest of such a preface means."""
    sent = preface("x", handshake_version=handshake).encode()
    error, answer = refusal(sent[:10] + b"\xff" * 54)
    assert (error.code, verdict_code(answer)) == (Code.VERSION, Code.VERSION)
    assert f"the other side speaks protocol {handshake} and this one 1: install the same actorflow version" in str(error)


@pytest.mark.parametrize("version", [0, PROTOCOL - 1, PROTOCOL + 1, 2**32 - 1])
def test_another_version_of_the_protocol_gets_a_clear_answer_on_both_sides(version: int) -> None:
    sent = preface("x", tls=True, protocol_version=version)
    error, answer = refusal(sent.encode())
    assert f"the other side speaks protocol 1.{version} and this one 1.{PROTOCOL}" in str(error)
    with pytest.raises(HandshakeRefused) as caught:
        PrefaceReply(sent, deadline=DEADLINE).receive(answer, NOW)
    assert caught.value.code is Code.VERSION
    assert f"the other side speaks protocol 1.{PROTOCOL} and this one 1.{version}" in str(caught.value)


@pytest.mark.parametrize(("apart", "shown"), [(601.0, "601 s ahead of"), (-7300.0, "2.0 hours behind"), (200_000.0, "2.3 days ahead of")])
def test_clocks_that_differ_too_much_get_a_clear_answer_on_both_sides(apart: float, shown: str) -> None:
    sent = preface("x", tls=True, wall_time=WALL + apart)
    error, answer = refusal(sent.encode())
    assert error.code is Code.CLOCK
    assert f"the clock of the other side is {shown} ours, and at most 600 s are tolerated" in str(error)
    with pytest.raises(HandshakeRefused) as caught:
        PrefaceReply(sent, deadline=DEADLINE).receive(answer, NOW)
    assert caught.value.code is Code.CLOCK
    assert "set both clocks" in str(caught.value)


@pytest.mark.parametrize("apart", [-CLOCK_SKEW_S_MAX, 0.0, CLOCK_SKEW_S_MAX])
def test_clocks_may_differ_a_little(apart: float) -> None:
    reader().receive(preface("x", tls=True, wall_time=WALL + apart).encode(), NOW)


def test_no_tls_where_it_is_required() -> None:
    plain = preface("x", tls=False)
    error, answer = refusal(plain.encode())
    assert (error.code, verdict_code(answer)) == (Code.PLAIN, Code.PLAIN)
    port = reader(plain_allowed=True)
    port.receive(plain.encode(), NOW)
    assert port.preface == plain


def test_every_bit_of_a_preface_means_something() -> None:
    """There is no second way to write one: in it nothing hides, and the transcript is the same on both sides."""
    data = GOOD.encode()
    for at in range(10, PREFACE_BYTES):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            port = reader(plain_allowed=True)
            try:
                port.receive(bytes(changed), NOW)
            except HandshakeRefused:
                continue
            assert port.preface not in (None, GOOD)
            assert port.preface.encode() == changed


def test_the_node_turns_away_who_names_nobody_or_comes_too_many() -> None:
    for code, text in ((Code.TARGET, "that process is not there any more"), (Code.BUSY, "try again in a moment")):
        port = reader()
        port.receive(GOOD.encode(), NOW)
        assert port.turn_away(code, "why").code is code
        answer = port.outgoing()
        with pytest.raises(HandshakeRefused) as caught:
            PrefaceReply(GOOD, deadline=DEADLINE).receive(answer, NOW)
        assert caught.value.code is code
        assert text in str(caught.value)


@pytest.mark.parametrize(("sent", "why"), [(0, "it said nothing in time"), (10, "10 of 64 bytes came in time")])
def test_a_half_open_peer_is_given_up_at_the_deadline(sent: int, why: str) -> None:
    port = reader()
    port.receive(GOOD.encode()[:sent], NOW)
    port.check(DEADLINE - 0.001)
    for late in (lambda: port.check(DEADLINE), lambda: port.receive(b"", NOW)):
        with pytest.raises(HandshakeRefused, match=why) as caught:
            late()
        assert caught.value.code is Code.TIMEOUT
    assert port.outgoing() == b""


def test_a_preface_in_time_has_no_deadline_any_more() -> None:
    port = reader()
    port.receive(GOOD.encode(), NOW)
    port.check(DEADLINE + 1)


def test_a_connection_that_ends_early() -> None:
    port = reader()
    assert str(port.closed()) == "closed without a word"
    port.receive(MAGIC, NOW)
    assert str(port.closed()) == "closed after 8 bytes"


# The connector --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"\x16\x03\x03", b"\x15\x03\x03\x00\x02", b"\x16"])
def test_tls_is_handed_on(first: bytes) -> None:
    reply = PrefaceReply(GOOD, deadline=DEADLINE)
    assert reply.receive(b"", NOW) == b""
    assert reply.receive(first, NOW) == first
    assert reply.tls_begun
    assert reply.receive(b"anything", DEADLINE + 1) == b"anything"


@pytest.mark.parametrize("size", range(1, VERDICT_BYTES + 1))
@pytest.mark.parametrize("code", [code for code in Code if code is not Code.ADMITTED])
def test_a_verdict_is_read_in_whatever_pieces(code: Code, size: int) -> None:
    data = Verdict(code, PROTOCOL, WALL).encode() + b"and more"
    reply = PrefaceReply(GOOD, deadline=DEADLINE)
    with pytest.raises(HandshakeRefused) as caught:
        for at in range(0, len(data), size):
            assert reply.receive(data[at : at + size], NOW) == b""
    assert caught.value.code is code
    assert str(caught.value) == verdict_text(Verdict(code, PROTOCOL, WALL), GOOD) != ""
    assert reply.held == 0


def test_a_verdict_of_a_later_version_is_still_a_refusal() -> None:
    with pytest.raises(HandshakeRefused, match=r"code 999, which this version does not know") as caught:
        PrefaceReply(GOOD, deadline=DEADLINE).receive(Verdict(999, PROTOCOL, WALL, 2).encode(), NOW)
    assert caught.value.code is Code.NOT_ADMITTED


def test_nobody_is_admitted_before_tls() -> None:
    with pytest.raises(HandshakeRefused) as caught:
        PrefaceReply(GOOD, deadline=DEADLINE).receive(Verdict(Code.ADMITTED, PROTOCOL, WALL).encode(), NOW)
    assert caught.value.code is Code.MALFORMED


@pytest.mark.parametrize(("data", "why"), [(b"HTTP/1.1 400 Bad Request\r\n", "HTTP"), (b"SSH-2.0-x", "SSH"), (b"\x00\x01", "00 01")])
def test_another_program_at_the_port_is_named(data: bytes, why: str) -> None:
    with pytest.raises(HandshakeRefused, match=f"no actorflow node answers there: .*{why}"):
        PrefaceReply(GOOD, deadline=DEADLINE).receive(data, NOW)


def test_a_listener_that_does_not_speak_is_given_up_at_the_deadline() -> None:
    reply = PrefaceReply(GOOD, deadline=DEADLINE)
    reply.receive(VERDICT_MAGIC[:3], NOW)
    with pytest.raises(HandshakeRefused, match="nobody answered in time") as caught:
        reply.check(DEADLINE)
    assert caught.value.code is Code.TIMEOUT


# Anything -------------------------------------------------------------------------------------------------------------

PIECES = st.lists(st.binary(max_size=80), max_size=6)


@given(PIECES, st.sampled_from([b"", MAGIC, GOOD.encode()[:20], GOOD.encode()[:63]]))
def test_a_reader_returns_or_refuses(pieces: list[bytes], begin: bytes) -> None:
    before, port = len(unpickled), reader()
    try:
        for piece in [begin, *pieces]:
            port.receive(piece, NOW)
            assert port.held < PREFACE_BYTES
    except HandshakeRefused:
        assert port.held == 0
        assert len(port.outgoing()) in (0, VERDICT_BYTES)
    assert len(unpickled) == before


@given(PIECES, st.sampled_from([b"", VERDICT_MAGIC, VERDICT_MAGIC + bytes(17)]))
def test_a_reply_is_tls_or_refused(pieces: list[bytes], begin: bytes) -> None:
    before, reply = len(unpickled), PrefaceReply(GOOD, deadline=DEADLINE)
    try:
        for piece in [begin, *pieces]:
            reply.receive(piece, NOW)
            assert reply.held < VERDICT_BYTES
    except HandshakeRefused:
        assert reply.held == 0
    assert len(unpickled) == before


@given(st.binary(max_size=40))
def test_whatever_it_is_has_a_description(data: bytes) -> None:
    assert describe_foreign(data)


@given(st.binary(min_size=PREFACE_BYTES - 8, max_size=PREFACE_BYTES - 8))
def test_any_preface_is_read_or_refused(rest: bytes) -> None:
    """WI-1."""
    try:
        assert Preface.decode(MAGIC + rest).handshake_version >= 0
    except HandshakeRefused as error:
        assert error.code is Code.MALFORMED
