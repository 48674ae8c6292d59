"""The handshake: two sessions by a wire of bytes, and everything that may be wrong with the other side."""

from dataclasses import dataclass, field

import pytest

from actorflow._core.base.errors import ProtocolError
from actorflow._core.protocol.codec import PROTOCOL_VERSION, encode
from actorflow._core.protocol.framing import FRAME_BYTES_MAX, HANDSHAKE_FRAME_BYTES_MAX, HEADER_BYTES, frame
from actorflow._core.protocol.messages import AnyMessage, Cancel, Define, Hello, Shutdown, Welcome
from actorflow._core.protocol.session import ROLES, Identity, Session

DRIVER = Identity("driver", "d1", "job-1", "unix:/d", 7, "default", ["/src"])
NODE = Identity("node", "n1", address="unix:/n", info={"head": "unix:/h"})


@dataclass
class Pair:
    """A connector and an acceptor; `turn` carries the handshake one way."""

    connector: Session = field(default_factory=lambda: Session(DRIVER, acceptor=False))
    acceptor: Session = field(default_factory=lambda: Session(NODE, acceptor=True))

    def shake_hands(self) -> None:
        assert self.acceptor.receive(self.connector.outgoing()) == []
        assert self.connector.receive(self.acceptor.outgoing()) == []


def hello(version: str = PROTOCOL_VERSION, role: str = "worker") -> Hello:
    return Hello(version, role, "w1", "job-1", "unix:/w")


def ready() -> Pair:
    pair = Pair()
    pair.shake_hands()
    return pair


def test_both_sides_learn_who_the_other_is() -> None:
    pair = ready()
    assert pair.connector.ready
    assert pair.acceptor.ready
    assert pair.acceptor.hello == Hello(PROTOCOL_VERSION, "driver", "d1", "job-1", "unix:/d", 7, "default", ["/src"])
    assert pair.connector.welcome == Welcome("n1", "node", "unix:/n", "", {"head": "unix:/h"})


def test_the_connector_speaks_first_and_each_says_it_once() -> None:
    pair = Pair()
    assert pair.acceptor.outgoing() == b""
    assert pair.connector.outgoing() == encode([DRIVER.hello()])
    assert pair.connector.outgoing() == b""


@pytest.mark.parametrize("role", ROLES)
def test_every_role_is_welcome(role: str) -> None:
    acceptor = Session(NODE, acceptor=True)
    acceptor.receive(encode([hello(role=role)]))
    assert acceptor.ready


def test_messages_pass_both_ways_in_order() -> None:
    pair = ready()
    messages: list[AnyMessage] = [Cancel(1, 0), Shutdown("enough"), Cancel(2, 0)]
    assert pair.acceptor.receive(encode(messages)) == messages
    assert pair.connector.receive(encode(messages[:1]) + encode(messages[1:])) == messages


def test_messages_may_come_together_with_the_handshake() -> None:
    """One read of the connector may hold the Welcome and what the acceptor said next, however large."""
    pair = Pair()
    pair.acceptor.receive(pair.connector.outgoing())
    large = Define("f", "f", bytes(2 * HANDSHAKE_FRAME_BYTES_MAX))
    assert pair.connector.receive(pair.acceptor.outgoing() + encode([large, Cancel(1, 0)])) == [large, Cancel(1, 0)]


def test_messages_may_share_the_frame_of_the_handshake() -> None:
    acceptor = Session(NODE, acceptor=True)
    assert acceptor.receive(encode([hello(), Cancel(1, 0)])) == [Cancel(1, 0)]


def test_the_handshake_may_come_byte_by_byte() -> None:
    pair = Pair()
    data = pair.connector.outgoing()
    assert [pair.acceptor.receive(data[at : at + 1]) for at in range(len(data))] == [[]] * len(data)
    assert pair.acceptor.ready


# -- what is refused


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (hello(version="0"), "protocol '0' meets '1': install the same actorflow version on both sides"),
        (hello(role="king"), "unknown role 'king': known are driver, worker, node, head"),
    ],
)
def test_a_refusal_reaches_the_connector_in_words(first: Hello, reason: str) -> None:
    pair = Pair()
    with pytest.raises(ProtocolError, match=f"refused a connection from 'w1': {reason}"):
        pair.acceptor.receive(encode([first]))
    with pytest.raises(ProtocolError, match=f"node n1 refused this connection: {reason}"):
        pair.connector.receive(pair.acceptor.outgoing())
    assert not pair.acceptor.ready
    assert not pair.connector.ready


def test_se_1_an_acceptor_takes_nothing_before_hello() -> None:
    acceptor = Session(NODE, acceptor=True)
    with pytest.raises(ProtocolError, match="the first message must be Hello, not Cancel"):
        acceptor.receive(encode([Cancel(1, 0), hello()]))
    assert acceptor.outgoing() == b""


def test_se_1_a_connector_takes_nothing_before_welcome() -> None:
    connector = Session(DRIVER, acceptor=False)
    with pytest.raises(ProtocolError, match="the first answer must be Welcome, not Hello"):
        connector.receive(encode([hello()]))


def test_se_1_an_empty_frame_is_no_handshake() -> None:
    with pytest.raises(ProtocolError, match="an empty frame came before the handshake"):
        Session(NODE, acceptor=True).receive(encode([]))


def test_se_1_messages_in_front_of_a_bad_one_are_not_given_out_without_a_handshake() -> None:
    acceptor = Session(NODE, acceptor=True)
    with pytest.raises(ProtocolError):
        acceptor.receive(frame(b"\xc1") + encode([hello(), Cancel(1, 0)]))
    assert not acceptor.ready


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"SSH-2.0-x\r\n"])
def test_another_protocol_is_refused_at_once(data: bytes) -> None:
    """Read as a length, the first four bytes of text are over the bound."""
    with pytest.raises(ProtocolError, match="the limit here is 65536"):
        Session(NODE, acceptor=True).receive(data)


def test_a_frame_over_the_bound_before_the_handshake() -> None:
    session = Session(NODE, acceptor=True)
    with pytest.raises(ProtocolError, match=f"the limit here is {HANDSHAKE_FRAME_BYTES_MAX}"):
        session.receive((HANDSHAKE_FRAME_BYTES_MAX + 1).to_bytes(HEADER_BYTES, "little"))


def test_a_frame_over_the_bound_after_the_handshake() -> None:
    pair = ready()
    for session in (pair.connector, pair.acceptor):
        assert session.receive(encode([Define("f", "f", bytes(HANDSHAKE_FRAME_BYTES_MAX))]))
        with pytest.raises(ProtocolError, match=f"the limit here is {FRAME_BYTES_MAX}"):
            session.receive((FRAME_BYTES_MAX + 1).to_bytes(HEADER_BYTES, "little"))


@pytest.mark.parametrize("bad", [encode([Cancel(1, 0)]), encode([hello(version="0")]), frame(b"\xc1"), b"\xff\xff\xff\xff"])
def test_se_2_an_error_ends_the_session(bad: bytes) -> None:
    """Nobody gets a second try on the same connection."""
    session = Session(NODE, acceptor=True)
    with pytest.raises(ProtocolError) as first:
        session.receive(bad)
    with pytest.raises(ProtocolError) as second:
        session.receive(encode([hello()]))
    assert first.value is second.value
    assert not session.ready
