"""Ledgers and link sessions: what is kept, what is sent again, and what cannot be (RS-1, RS-2; SEMANTICS 6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.base.errors import ProtocolError
from actorflow._core.protocol.codec import encode
from actorflow._core.protocol.links import TELL_FRAMES, Ledger, LinkSession
from actorflow._core.protocol.messages import Cancel, Goodbye, Hello, Received
from actorflow._core.protocol.session import Identity

WORKER, DRIVER = Identity("worker", "w"), Identity("driver", "d")


def frames(count: int, first: int = 0) -> list[bytes]:
    return [encode([Cancel(number, 0)]) for number in range(first, first + count)]


@given(st.integers(0, 30), st.data())
def test_rs_1_what_is_missing_is_what_did_not_arrive(count: int, data: st.DataObject) -> None:
    ledger, sent = Ledger(), frames(count)
    confirmed = 0
    for number, frame in enumerate(sent):
        ledger.add(frame)
        if data.draw(st.booleans()):
            confirmed = data.draw(st.integers(confirmed, number + 1))
            ledger.confirm(confirmed)
    received = data.draw(st.integers(confirmed, count))
    assert ledger.sent == count
    assert ledger.missing(received) == sent[received:]
    assert ledger.kept_bytes == sum(map(len, sent[received:]))


def test_rs_2_beyond_the_bound_it_cannot_go_on() -> None:
    sent = frames(10)
    ledger = Ledger(bytes_max=len(sent[0]) * 4)
    for frame in sent:
        ledger.add(frame)
    assert ledger.kept_bytes <= len(sent[0]) * 4
    assert ledger.missing(3) is None
    assert ledger.missing(6) == sent[6:]


def test_more_than_was_sent_is_an_error() -> None:
    ledger = Ledger()
    ledger.add(b"x")
    with pytest.raises(ProtocolError, match="confirms 2 frames of 1"):
        ledger.confirm(2)
    assert ledger.missing(2) is None


def shake(connector: LinkSession, acceptor: LinkSession) -> None:
    assert acceptor.receive(connector.outgoing()) == []
    assert connector.receive(acceptor.outgoing()) == []
    assert connector.ready
    assert acceptor.ready


def pair(judge: object = None, frames_there: int = -1) -> tuple[LinkSession, LinkSession]:
    connector = LinkSession(DRIVER, acceptor=False, link="L", frames=frames_there)
    return connector, LinkSession(WORKER, acceptor=True, judge=judge)  # type: ignore[arg-type]


def test_frames_behind_the_handshake_are_counted() -> None:
    connector, acceptor = pair()
    shake(connector, acceptor)
    assert (connector.frames, acceptor.frames) == (0, 0)
    data = b"".join(frames(3))
    assert len(acceptor.receive(data[:20])) + len(acceptor.receive(data[20:])) == 3
    assert acceptor.frames == 3
    assert acceptor.untold
    assert acceptor.tell() == Received(3)
    assert not acceptor.untold


def test_what_comes_right_behind_the_handshake_is_counted_too() -> None:
    connector, acceptor = pair()
    acceptor.receive(connector.outgoing() + b"".join(frames(2)))
    assert acceptor.frames == 2


def test_what_is_about_the_link_is_not_for_the_role() -> None:
    connector, acceptor = pair()
    shake(connector, acceptor)
    heard: list[int] = []
    acceptor.on_received = heard.append
    assert acceptor.receive(encode([Received(5), Cancel(1, 0)]) + encode([Goodbye()])) == [Cancel(1, 0)]
    assert heard == [5]
    assert acceptor.goodbye
    assert acceptor.frames == 2


def test_it_does_not_answer_confirmations_with_confirmations() -> None:
    connector, acceptor = pair()
    shake(connector, acceptor)
    for _ in range(2 * TELL_FRAMES):
        acceptor.receive(encode([Received(0)]))
    assert not acceptor.untold
    assert not acceptor.much_untold
    acceptor.receive(frames(1)[0])
    assert acceptor.much_untold


def test_a_link_goes_on_where_both_sides_are() -> None:
    asked: list[Hello] = []

    def judge(hello: Hello) -> tuple[int, str]:
        asked.append(hello)
        return 23, ""

    connector, acceptor = pair(judge, frames_there=17)
    shake(connector, acceptor)
    assert [(hello.link, hello.received) for hello in asked] == [("L", 17)]
    assert connector.welcome is not None
    assert connector.welcome.received == 23
    assert (connector.frames, acceptor.frames) == (17, 23)


def test_a_link_that_is_over_is_refused_in_words() -> None:
    connector, acceptor = pair(lambda hello: (0, "this link is over"), frames_there=17)
    with pytest.raises(ProtocolError, match="this link is over"):
        acceptor.receive(connector.outgoing())
    with pytest.raises(ProtocolError, match="worker w refused this connection: this link is over"):
        connector.receive(acceptor.outgoing())
