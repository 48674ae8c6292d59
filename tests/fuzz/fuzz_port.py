"""What strangers send to the port of a running cluster: a million connections, and every process lives and has unpickled nothing.

    python -m tests.fuzz.fuzz_port --iterations 1000000 --seed 7                in the open, to every name behind the port
    python -m tests.fuzz.fuzz_port --iterations 1000000 --seed 7 --inside-tls   the same inside an accepted TLS connection

A cluster of real processes is started, with an actor on it, so that there are a head, a desk, a node, a worker and a driver to speak to.
Each process has an audit hook from its start that counts the classes that pickles ask for. The inputs are those of `fuzz_handshake`, and
frames with pickles in them; with --inside-tls the stranger has a certificate of the cluster's authority, as a thief might, and no key. The
same seed sends the same.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import pickle
import random
import selectors
import socket
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actorflow._core.io.cluster_access import HANDSHAKE_PROTOCOL
from actorflow._core.protocol.codec import encode
from actorflow._core.protocol.messages import Hello, Inline, Reply
from actorflow._core.security.errors import Code
from actorflow._core.security.wire import ANSWER_BYTES, OPENING_BYTES, VERDICT_BYTES, VERDICT_MAGIC, Preface, Verdict
from tests.fuzz.fuzz_handshake import honest, parts
from tests.security.strangers import Target

IN_FLIGHT = 24
"""Connections at one time: fewer than the lobby has room for from one host, as it is not the lobby that is meant here."""
ANSWER_TIMEOUT_S = 8.0
STAYS_NOT = 0.999
"""Most say what they have to say and leave; those that stay are there until their time is over."""
ALIVE_EVERY = 5_000
"""How often it is looked whether everybody lives."""

HOOK = '''
import os, sys
_path = os.environ["FUZZ_AUDIT"]
def _hook(event, arguments):
    if event == "pickle.find_class":
        file = os.open(_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)  # A worker closes what it has inherited.
        os.write(file, f"{os.getpid()} {'.'.join(arguments)}\\n".encode())
        os.close(file)
sys.addaudithook(_hook)
'''
"""As `sitecustomize` in every process of the cluster."""


class Finding(Exception):
    """Something happened that must not."""


class Exploded:
    """Unpickled, it would be seen."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.getcwd, ()


def harmful(rng: random.Random) -> bytes:
    """What would do harm behind the handshake: messages with pickles in them, and bare pickles."""
    data = pickle.dumps(Exploded())
    hello = Hello("1", "worker", "w", "", "")
    return rng.choice((encode([hello, Reply(1, 1, Inline(data))]), encode([hello]), data))


def sent_by(rng: random.Random, said: list[bytes], name: str, *, tls: bool) -> tuple[bytes, bytes]:
    """What one connection brings at once, and what it says to an answer."""
    if tls:
        # The preface was read and TLS is there: what comes now is for the challenge.
        brought = parts(rng, "acceptor", said)
    elif rng.random() < 0.5:
        brought = [Preface(name, False, HANDSHAKE_PROTOCOL, time.time()).encode(), *parts(rng, "acceptor", said)]
    else:
        brought = parts(rng, "preface", said)
    if rng.random() < 0.3:
        brought.append(harmful(rng))
    begun = 1 if tls else 2
    if len(brought) > begun and len(brought[begun - 1]) == OPENING_BYTES and rng.random() < 0.8:
        return b"".join(brought[:begun]), b"".join(brought[begun:])  # In turn, as who knows the handshake does.
    return b"".join(brought), b""


class _Stranger:
    """One connection: says its pieces, hears what there is to hear, and leaves."""

    def __init__(
        self, place: tuple[str, int], said: bytes, then: bytes, leaves: bool, context: ssl.SSLContext | None, name: str
    ) -> None:
        self.heard = b""
        self._then = then
        self._leaves = leaves
        self.give_up_at = time.monotonic() + ANSWER_TIMEOUT_S
        self.sock: socket.socket = socket.create_connection(place, timeout=ANSWER_TIMEOUT_S)
        if context is not None:
            self.sock.sendall(Preface(name, True, HANDSHAKE_PROTOCOL, time.time()).encode())
            self.sock = context.wrap_socket(self.sock)
        self._say(said, last=not then)
        self.sock.setblocking(False)

    def _say(self, data: bytes, *, last: bool) -> None:
        with contextlib.suppress(OSError):
            self.sock.sendall(data)
            if last and self._leaves:
                socket.socket.shutdown(self.sock, socket.SHUT_WR)  # That of an SSLSocket would take TLS away.

    def hear(self) -> bool:
        """True when it is over."""
        try:
            while part := self.sock.recv(65_536):
                self.heard += part
                if self._then:
                    self._say(self._then, last=True)
                    self._then = b""
                if len(self.heard) > ANSWER_BYTES + VERDICT_BYTES:
                    raise Finding(f"{len(self.heard)} bytes were answered: {self.heard[:64].hex()}")
            return True
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True

    def outcome(self) -> str:
        """How it ended. Raises Finding when it was admitted."""
        at = self.heard.find(VERDICT_MAGIC)
        if at < 0 or len(self.heard) - at < VERDICT_BYTES:
            return "closed after an answer" if self.heard else "closed"
        code = Verdict.decode(self.heard[at : at + VERDICT_BYTES]).code
        if code == Code.ADMITTED:
            raise Finding("a stranger was admitted")
        return Code(code).name.lower()


class Fuzz:
    """The cluster under fire, and what is known of it."""

    def __init__(self, target: Target, names: list[str], pids: list[int], audit: Path, *, tls: bool) -> None:
        self._target = target
        self._names = names
        self._pids = pids
        self._audit = audit
        self._context: ssl.SSLContext | None = None
        self._before = self.unpickled()
        if tls:
            from actorflow._core.security.tls import client_side

            stolen = target.certified("node/thief", "job/thief")
            assert stolen is not None
            self._context = client_side(stolen).context

    def unpickled(self) -> list[str]:
        """What the processes of the cluster have unpickled so far."""
        return self._audit.read_text().splitlines() if self._audit.exists() else []

    def check(self) -> None:
        """Raise Finding unless everybody lives and nothing was unpickled."""
        gone = [pid for pid in self._pids if not os.path.exists(f"/proc/{pid}/exe")]
        if gone:
            raise Finding(f"processes {gone} of {self._pids} are gone")
        if news := self.unpickled()[len(self._before) :]:
            raise Finding(f"unpickled: {news[:5]}")

    def run(self, seed: int, iterations: int) -> Counter[str]:
        """Raises Finding, with the seed and the number of the input at which it was seen."""
        outcomes: Counter[str] = Counter()
        strangers: dict[_Stranger, None] = {}
        place = (self._target.host, self._target.port)
        said = honest(random.Random(seed))
        with selectors.DefaultSelector() as open_ones:
            for number in range(iterations):
                rng = random.Random(f"{seed}/{number}")
                if number % 100 == 0:
                    said = honest(rng)
                name = rng.choice(self._names)
                try:
                    sent, then = sent_by(rng, said, name, tls=self._context is not None)
                    stranger = _Stranger(place, sent, then, rng.random() < STAYS_NOT, self._context, name)
                    strangers[stranger] = None
                    open_ones.register(stranger.sock, selectors.EVENT_READ, stranger)
                    while len(strangers) >= IN_FLIGHT:
                        self._hear(open_ones, strangers, outcomes)
                    if number % ALIVE_EVERY == 0:
                        self.check()
                except Finding as finding:
                    raise Finding(f"seed {seed}, at input {number}: {finding}") from finding
            while strangers:
                self._hear(open_ones, strangers, outcomes)
        self.check()
        return outcomes

    @staticmethod
    def _hear(open_ones: selectors.BaseSelector, strangers: dict[_Stranger, None], outcomes: Counter[str]) -> None:
        ready = {key.data for key, _ in open_ones.select(1.0)}
        now = time.monotonic()
        for stranger in list(strangers):
            if stranger in ready and stranger.hear():
                outcomes[stranger.outcome()] += 1
            elif now < stranger.give_up_at:
                continue
            else:
                raise Finding("a connection was not closed in time")
            del strangers[stranger]
            open_ones.unregister(stranger.sock)
            stranger.sock.close()


@contextlib.contextmanager
def under_fire(*, tls: bool) -> Iterator[Fuzz]:
    """A cluster with an actor, whose processes are audited."""
    import actorflow as af
    from actorflow import _nodes
    from tests.security.strangers import Counter as CounterActor

    with tempfile.TemporaryDirectory(prefix="aff-") as directory:
        (Path(directory) / "sitecustomize.py").write_text(HOOK)
        audit = Path(directory) / "audit"
        path, environ = list(sys.path), dict(os.environ)
        sys.path.insert(0, directory)
        os.environ |= {"FUZZ_AUDIT": str(audit), "ACTORFLOW_TMPDIR": directory, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            node = _nodes.start(port=0, tls=tls, num_cpus=1, memory="1GiB", object_store_memory="64MiB")
            try:
                with af.init(address=node.tcp, log_to_driver=False) as session:
                    counter = CounterActor.remote()
                    af.sync(counter.add())
                    workers = af.sync(af.state.list_workers())
                    node_id = af.sync(af.state.list_nodes())[0]["node_id"]
                    names = ["head", "enrolment", node_id, *(row["worker_id"] for row in workers)]
                    pids = [node.pid, *(row["pid"] for row in workers)]
                    names.append(session._driver.core.identity.process_id)  # type: ignore[union-attr]
                    fuzz = Fuzz(Target([node], tls), names, pids, audit, tls=tls)
                    if not fuzz.unpickled():
                        raise Finding("the audit hook sees nothing: not even the class of the actor")
                    yield fuzz
                    if af.sync(counter.add(), timeout=20) != 2:
                        raise Finding("the actor has lost its state")
            finally:
                _nodes.stop()
        finally:
            sys.path[:] = path
            os.environ.clear()
            os.environ |= environ


def main() -> None:
    parser = argparse.ArgumentParser(description="What strangers send, against a running cluster.")
    parser.add_argument("--iterations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inside-tls", action="store_true")
    options = parser.parse_args()
    logging.getLogger("actorflow").setLevel(logging.ERROR)  # The driver is in this process, and says whom it refuses.
    begun = time.monotonic()
    with under_fire(tls=options.inside_tls) as fuzz:
        outcomes = fuzz.run(options.seed, options.iterations)
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:9} {outcome}")
    print(f"seed {options.seed}: {options.iterations} connections in {time.monotonic() - begun:.0f} s")
    print("nobody was admitted, every process lives, 0 objects were unpickled")


if __name__ == "__main__":
    main()
