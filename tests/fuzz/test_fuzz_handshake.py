"""The fuzz target of the handshake: a short run of it, and that it finds what it is for."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.fuzz_handshake import READERS, Finding, Reader, fuzz, honest, one, parts
from tests.unit.security.harness import NODE_2, preface


@given(rng=st.randoms(use_true_random=False), name=st.sampled_from(READERS))
def test_strangers_are_refused_or_waited_for(rng: random.Random, name: str) -> None:
    one(Reader(name, rng), parts(rng, name, honest(rng)), rng)


def test_a_short_run_meets_many_ends_and_is_repeatable() -> None:
    outcomes = fuzz(1, 2000)
    assert outcomes == fuzz(1, 2000)
    assert {"preface: waits", "preface: malformed", "preface: version", "preface: clock", "reply: malformed", "acceptor: not_admitted",
            "acceptor: waits", "connector: not_admitted", "connector: malformed"} <= set(outcomes)  # fmt: skip


def test_who_is_admitted_is_a_finding() -> None:
    """The preface goes through; were it enough, this would be seen."""
    rng = random.Random(1)
    reader = Reader("acceptor", rng)
    reader.admitted = lambda: True
    with pytest.raises(Finding, match="acceptor admits a stranger"):
        one(reader, [b""], rng)
    reader = Reader("preface", rng)
    reader.held = lambda: 1000
    with pytest.raises(Finding, match="preface keeps 1000 bytes"):
        one(reader, [preface(NODE_2).encode()], rng)
