"""TLS for real, in memory: preface, TLS 1.3, challenge, and everybody who should not get through."""

from __future__ import annotations

import hashlib
import ssl
import time
from dataclasses import dataclass, field

import pytest

from actorflow._core.security.authority import Authority, new_request
from actorflow._core.security.challenge import NO_CERTIFICATE, Acceptor, Binding, Connector, Expected
from actorflow._core.security.errors import Code, CredentialError, HandshakeRefused
from actorflow._core.security.keys import Key, Keyring
from actorflow._core.security.preface import PrefaceReader, PrefaceReply
from actorflow._core.security.roles import KeyKind
from actorflow._core.security.tls import (
    Credentials,
    TlsSide,
    authorities_of_token,
    binding_of,
    client_side,
    fingerprint_of,
    names_in,
    server_side,
    show_fingerprint,
    tls_failure,
)
from actorflow._core.security.tokens import make_token, parse_token
from actorflow._core.security.wire import Party, Proof
from tests.unit.security.harness import (
    DEADLINE,
    DRIVER,
    EVERY_ROLE,
    HEAD,
    NODE,
    NODE_2,
    NOW,
    PROTOCOL,
    SECRETS,
    WORKER,
    WORKER_2,
    key_for,
    preface,
    randomness,
    ring_of,
    terms,
    unpickled,
)

REAL = float(int(time.time()))
"""OpenSSL looks at the clock of the machine."""
DAY = 86_400.0
AUTHORITY = Authority.create("c1", wall_time=REAL)
OTHER_CLUSTER = Authority.create("c1", wall_time=REAL)
RING = SECRETS.keyring()


def credentials(*names: str, authority: Authority = AUTHORITY, trusts: Authority = AUTHORITY, issued: float = REAL) -> Credentials:
    """A certificate with these names; without any there is none."""
    if not names:
        return Credentials(trusts.certificate_pem())
    key, request = new_request()
    return Credentials(trusts.certificate_pem(), authority.issue(request, names, wall_time=issued), key)


@dataclass
class End:
    """One end of a TLS connection in memory."""

    side: TlsSide
    server: bool
    incoming: ssl.MemoryBIO = field(default_factory=ssl.MemoryBIO)
    outgoing: ssl.MemoryBIO = field(default_factory=ssl.MemoryBIO)

    def __post_init__(self) -> None:
        self.tls = self.side.context.wrap_bio(self.incoming, self.outgoing, server_side=self.server)
        self.ready = False

    def step(self) -> None:
        """Go on with the TLS handshake as far as the bytes go. Raises SSLError."""
        try:
            self.tls.do_handshake()
            self.ready = True
        except ssl.SSLWantReadError:
            pass

    def read(self) -> bytes:
        """What came through. Raises SSLError: an alert."""
        try:
            return self.tls.read(65_536)
        except ssl.SSLWantReadError:
            return b""

    def binding(self) -> Binding:
        return binding_of(self.tls, self.side)


def carry(one: End, other: End) -> None:
    """What both have written goes to the other."""
    other.incoming.write(one.outgoing.read())
    one.incoming.write(other.outgoing.read())


def connect(client: Credentials, server: Credentials) -> tuple[End, End]:
    """Two ends with TLS between them. Raises SSLError: of the end that is not content."""
    ends = End(client_side(client), False), End(server_side(server), True)
    for _ in range(4):
        for end in ends:
            if not end.ready:
                end.step()
            carry(*ends)
    assert all(end.ready for end in ends)
    return ends


def say(give: End, take: End, data: bytes) -> bytes:
    """`data` through TLS."""
    if data:
        give.tls.write(data)
    take.incoming.write(give.outgoing.read())
    return take.read()


def challenge(
    client: End, server: End, me: Party, peer: Party, key: Key, *, relay: tuple[End, End] | None = None, ring: Keyring | None = None
) -> tuple[Connector, Acceptor]:
    """The challenge inside TLS. `relay`: the ends of one in between, that faces the server and the client. Raises HandshakeRefused."""
    first = preface(peer, tls=True)
    mine = terms(me, Keyring(keys=(key,)), 1)
    connector = Connector(mine, key, first, client.binding(), Expected(EVERY_ROLE), deadline=DEADLINE)
    theirs = terms(peer, ring or ring_of(peer), 2)
    acceptor = Acceptor(theirs, first, server.binding(), wall_time=REAL, deadline=DEADLINE)
    to_server, to_client = relay or (client, server)
    for _ in range(2):
        sent = connector.outgoing()
        acceptor.receive(say(to_server, server, sent if relay is None else say(client, to_client, sent)), NOW)
        sent = acceptor.outgoing()
        connector.receive(say(to_client, client, sent if relay is None else say(server, to_server, sent)), NOW)
    return connector, acceptor


# Who gets through -----------------------------------------------------------------------------------------------------


def test_preface_then_tls_then_the_challenge() -> None:
    """The whole way, as a transport goes it: the node reads 64 bytes, all else is for the target."""
    first = preface(NODE_2, tls=True, wall_time=REAL)
    client, server = End(client_side(credentials("node/node-1")), False), End(server_side(credentials("node/node-2")), True)
    client.step()
    wire = first.encode() + client.outgoing.read()
    port = PrefaceReader(protocol_version=PROTOCOL, wall_time=REAL, deadline=DEADLINE, plain_allowed=False)
    server.incoming.write(port.receive(wire, NOW))
    assert port.preface == first
    server.step()
    reply = PrefaceReply(first, deadline=DEADLINE)
    client.incoming.write(reply.receive(server.outgoing.read(), NOW))
    client.step()
    server.incoming.write(client.outgoing.read())
    server.step()
    assert client.ready and server.ready
    connector, acceptor = challenge(client, server, NODE, NODE_2, key_for(NODE, NODE_2))
    assert connector.done and acceptor.done
    assert say(client, server, b"hello") == b"hello"


def test_both_ends_see_both_certificates() -> None:
    one, two = credentials("node/node-1"), credentials("node/node-2", "head/head-0")
    client, server = connect(one, two)
    ours, theirs = client.binding(), server.binding()
    assert (ours.own, ours.peer) == (theirs.peer, theirs.own)
    assert ours.own == fingerprint_of(ssl.PEM_cert_to_DER_cert(one.certificate.decode()))
    assert ours.peer_names == {"node/node-2", "head/head-0"}
    assert theirs.peer_names == {"node/node-1"}
    assert client.tls.version() == server.tls.version() == "TLSv1.3"


def test_a_driver_from_outside_needs_a_token_and_no_certificate() -> None:
    root = next(root for root in RING.roots if root.kind is KeyKind.CLIENT)
    text = make_token(root, AUTHORITY.certificate_der(), wall_time=REAL, random_bytes=randomness()).text()
    token = parse_token(text.encode(), KeyKind.CLIENT, "t")
    client, server = connect(Credentials(authorities_of_token(token.authority)), credentials("head/head-0"))
    assert client.binding().own == server.binding().peer == NO_CERTIFICATE
    connector, acceptor = challenge(client, server, DRIVER, HEAD, token.key)
    assert connector.done and acceptor.done


def test_a_machine_joins_with_a_token_and_gets_a_certificate() -> None:
    root = next(root for root in RING.roots if root.kind is KeyKind.JOIN)
    token = make_token(root, AUTHORITY.certificate_der(), wall_time=REAL, random_bytes=randomness(), valid_s=60.0, single_use=True)
    trusted = authorities_of_token(token.authority)
    client, server = connect(Credentials(trusted), credentials("head/head-0"))
    _, acceptor = challenge(client, server, NODE, HEAD, token.key)
    assert acceptor.peer is not None
    key, request = new_request()
    certificate = AUTHORITY.issue(say(client, server, request), [f"node/{acceptor.peer.party.process_id}"], wall_time=REAL)
    client, server = connect(Credentials(trusted, certificate, key), credentials("node/node-2"))
    connector, acceptor = challenge(client, server, NODE, NODE_2, RING.for_node().pick(KeyKind.NODE))
    assert connector.done and acceptor.done


def test_workers_of_a_job_know_one_another() -> None:
    client, server = connect(credentials("job/job-1"), credentials("job/job-1"))
    connector, acceptor = challenge(client, server, WORKER, WORKER_2, key_for(WORKER, WORKER_2))
    assert connector.done and acceptor.done


# In between -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("node/evil",), ("node/node-2",), ("node/node-1", "node/node-2", "head/head-0")], ids=str)
def test_one_in_between_with_a_certificate_of_the_same_authority_is_found_out(names: tuple[str, ...]) -> None:
    """It ends TLS on both sides and passes the challenge on, whatever its certificate says."""
    evil = credentials(*names)
    client, facing_client = connect(credentials("node/node-1"), evil)
    facing_server, server = connect(evil, credentials("node/node-2"))
    with pytest.raises(HandshakeRefused) as caught:
        challenge(client, server, NODE, NODE_2, key_for(NODE, NODE_2), relay=(facing_server, facing_client))
    assert caught.value.code is Code.NOT_ADMITTED
    assert "somebody is in between" in str(caught.value)


def test_one_in_between_a_token_holder_and_the_head_is_found_out() -> None:
    """With a certificate that names the head, even: the driver shows no certificate, and the head's own is enough."""
    key = RING.pick(KeyKind.CLIENT, "t")
    client, facing_client = connect(credentials(), credentials("head/head-0"))
    facing_server, server = connect(credentials(), credentials("head/head-0"))
    with pytest.raises(HandshakeRefused) as caught:
        challenge(client, server, DRIVER, HEAD, key, relay=(facing_server, facing_client))
    assert caught.value.code is Code.NOT_ADMITTED


def test_a_token_holder_cannot_pose_as_the_head_before_another_one() -> None:
    """It has the key of the token; a certificate that names the head it has not."""
    key = RING.pick(KeyKind.CLIENT, "t")
    client, server = connect(credentials(), credentials("job/job-1"))
    with pytest.raises(HandshakeRefused, match="would have to name head/head-0"):
        challenge(client, server, DRIVER, HEAD, key, ring=Keyring(keys=(key,)))


def test_inside_tls_nobody_is_admitted_without_the_secret() -> None:
    """The holder of a certificate, and arbitrary bytes in its accepted connection."""
    before = len(unpickled)
    random_bytes = randomness()
    for size in (1, 36, 116, 117, 4096):
        client, server = connect(credentials("node/node-1"), credentials("node/node-2"))
        acceptor = Acceptor(
            terms(NODE_2, ring_of(NODE_2)), preface(NODE_2, tls=True), server.binding(), wall_time=REAL, deadline=DEADLINE
        )
        with pytest.raises(HandshakeRefused):
            acceptor.receive(say(client, server, random_bytes(size)), NOW)
            acceptor.receive(say(client, server, Proof(bytes(32)).encode()), NOW)
            acceptor.check(DEADLINE)
        assert not acceptor.done
    assert len(unpickled) == before


# Wrong certificates ---------------------------------------------------------------------------------------------------


def failure(client: Credentials, server: Credentials) -> tuple[HandshakeRefused, HandshakeRefused]:
    """How a connection fails that must not succeed: as the one who minds sees it, and as the other is told."""
    ends = End(client_side(client), False), End(server_side(server), True)
    errors: dict[bool, ssl.SSLError] = {}
    for _ in range(4):
        for end in ends:
            if end.server not in errors:
                try:
                    if end.ready:
                        end.read()
                    else:
                        end.step()
                except ssl.SSLError as error:
                    errors[end.server] = error
            carry(*ends)
    first, second = errors.values()
    return tls_failure(first), tls_failure(second)


def test_a_server_of_another_cluster_is_refused() -> None:
    mine, told = failure(credentials("node/node-1"), credentials("node/node-2", authority=OTHER_CLUSTER))
    assert mine.code is told.code is Code.NOT_ADMITTED
    assert str(mine).startswith("the other side's certificate is not of this cluster's authority: that is another cluster")
    assert str(told).startswith("our certificate is not of this cluster's authority")


def test_a_client_of_another_cluster_is_refused() -> None:
    mine, told = failure(credentials("node/node-1", authority=OTHER_CLUSTER), credentials("node/node-2"))
    assert mine.code is told.code is Code.NOT_ADMITTED


def test_an_expired_certificate_is_refused_with_a_word_about_clocks() -> None:
    old = credentials("node/node-1", issued=REAL - 3 * DAY)
    for client, server in ((old, credentials("node/node-2")), (credentials("node/node-2"), old)):
        mine, told = failure(client, server)
        assert mine.code is told.code is Code.CLOCK
        assert "the other side's certificate has expired: compare the clocks of both hosts" in str(mine)
        assert "the other side says that our certificate has expired" in str(told)


def test_a_certificate_from_the_future_is_refused_with_a_word_about_clocks() -> None:
    mine, _ = failure(credentials("node/node-1"), credentials("node/node-2", issued=REAL + DAY))
    assert mine.code is Code.CLOCK
    assert "is not valid yet: compare the clocks of both hosts" in str(mine)


def test_a_clock_of_the_head_that_is_a_little_ahead_does_not_matter() -> None:
    connect(credentials("node/node-1", issued=REAL + 540), credentials("node/node-2", issued=REAL + 540))


def test_a_node_cannot_sign_certificates() -> None:
    key, request = new_request()
    certificate = AUTHORITY.issue(request, ["node/node-1"], wall_time=REAL)
    false_authority = Authority.load(certificate, key, "x")
    forged = credentials("head/head-0", authority=false_authority)
    chain = Credentials(forged.authorities, forged.certificate + certificate, forged.key)
    mine, _ = failure(credentials("node/node-2"), chain)
    assert mine.code is Code.NOT_ADMITTED


def test_tls_1_2_is_refused() -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    client, server = End(TlsSide(old, NO_CERTIFICATE), False), End(server_side(credentials("node/node-2")), True)
    client.step()
    server.incoming.write(client.outgoing.read())
    with pytest.raises(ssl.SSLError) as caught:
        server.step()
    error = tls_failure(caught.value)
    assert error.code is Code.MALFORMED
    assert "does not speak TLS 1.3" in str(error)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 64, b"SSH-2.0-x\r\n", bytes(range(255, 100, -1))])
@pytest.mark.parametrize("server", [True, False])
def test_what_is_not_tls_is_told(data: bytes, server: bool) -> None:
    side = server_side(credentials("node/node-2")) if server else client_side(credentials())
    end = End(side, server)
    end.step()
    end.incoming.write(data)
    with pytest.raises(ssl.SSLError) as caught:
        end.step()
    assert tls_failure(caught.value).code is Code.MALFORMED


def test_a_reset_in_the_middle_of_tls_is_told() -> None:
    assert "TLS failed" in str(tls_failure(ConnectionResetError(104, "Connection reset by peer")))


# Contexts -------------------------------------------------------------------------------------------------------------


def test_contexts_speak_tls_1_3_only_and_resume_nothing() -> None:
    """TL-1, TL-2."""
    server, client = server_side(credentials("node/node-2")).context, client_side(credentials()).context
    for context in (server, client):
        assert context.minimum_version == context.maximum_version == ssl.TLSVersion.TLSv1_3
        assert not context.check_hostname
        assert context.keylog_filename is None
    assert server.num_tickets == 0
    assert (server.verify_mode, client.verify_mode) == (ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED)


def test_a_renewed_certificate_is_shown_on_new_connections() -> None:
    before, after = server_side(credentials("node/node-2")), server_side(credentials("node/node-2"))
    assert before.fingerprint != after.fingerprint
    assert before.context is not after.context


def test_two_authorities_may_be_trusted_at_once() -> None:
    both = AUTHORITY.certificate_pem() + OTHER_CLUSTER.certificate_pem()
    mine, theirs = credentials("node/node-1"), credentials("node/node-2", authority=OTHER_CLUSTER)
    connect(Credentials(both, mine.certificate, mine.key), Credentials(both, theirs.certificate, theirs.key))


def test_useless_credentials_are_told() -> None:
    with pytest.raises(ValueError, match="needs a certificate"):
        server_side(credentials())
    good = credentials("node/node-1")
    with pytest.raises(CredentialError, match="the certificate of the cluster's authority cannot be used"):
        client_side(Credentials(b""))
    with pytest.raises(CredentialError, match="the certificate of the cluster's authority cannot be used"):
        client_side(Credentials(b"\xff"))
    with pytest.raises(CredentialError, match="the certificate of this process cannot be used"):
        server_side(Credentials(good.authorities, good.certificate, new_request()[0]))
    with pytest.raises(CredentialError, match="the certificate in the token cannot be used"):
        authorities_of_token(b"x" * 50)


def test_the_fingerprint_is_that_of_the_certificate_that_is_shown() -> None:
    """Also when the text holds a chain behind it."""
    mine = credentials("node/node-2")
    chain = Credentials(mine.authorities, mine.certificate + AUTHORITY.certificate_pem(), mine.key)
    assert server_side(chain).fingerprint == server_side(mine).fingerprint
    client, server = connect(credentials("node/node-1"), chain)
    assert client.binding().peer == server.binding().own
    for broken in (b"", b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n", b"\xff"):
        with pytest.raises(CredentialError, match="the certificate of this process cannot be used"):
            server_side(Credentials(mine.authorities, broken + b" ", mine.key))


def test_a_connection_before_its_handshake_has_no_binding() -> None:
    end = End(client_side(credentials()), False)
    with pytest.raises(HandshakeRefused, match="speaks None, not TLSv1.3"):
        end.binding()


def test_names_of_others_in_a_certificate_are_not_ours() -> None:
    assert names_in({"subjectAltName": (("DNS", "actorflow:node/x"), ("URI", "https://x"), ("URI", "actorflow:node/y"))}) == {"node/y"}
    assert names_in(None) == names_in({}) == frozenset()


def test_a_fingerprint_is_shown_as_other_tools_show_it() -> None:
    shown = show_fingerprint(fingerprint_of(b"x"))
    assert shown.replace(":", "").lower() == hashlib.sha256(b"x").hexdigest()
    assert shown.count(":") == 31


def test_the_key_of_a_process_is_not_shown() -> None:
    mine = credentials("node/node-1")
    assert "PRIVATE KEY" not in repr(mine)
