"""The fuzz target of a running cluster: a short run of it in the open and inside TLS, and that it finds what it is for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actorflow._core.security.errors import Code
from actorflow._core.security.wire import Verdict
from tests.fuzz.fuzz_port import Finding, Fuzz, under_fire

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("tls", [False, True], ids=["in the open", "inside TLS"])
def test_a_short_run_leaves_everybody_alive_and_nothing_unpickled(tls: bool) -> None:
    with under_fire(tls=tls) as fuzz:
        outcomes = fuzz.run(1, 300 if tls else 2000)
        assert sum(outcomes.values()) == (300 if tls else 2000)
        node_pid, *_ = fuzz._pids
        assert [line for line in fuzz.unpickled() if line.split()[0] == str(node_pid)] == [], "nor has the head, ever"
        assert {"closed", "closed after an answer", "malformed", "not_admitted"} <= set(outcomes)
        fuzz._audit.write_text("\n".join([*fuzz.unpickled(), "1 os.system"]))
        with pytest.raises(Finding, match=r"unpickled: \['1 os.system'\]"):
            fuzz.check()


def test_a_process_that_is_gone_and_a_stranger_that_is_admitted_are_findings(tmp_path: Path) -> None:
    fuzz = Fuzz(None, [], [os.getpid(), 2**22 + 1], tmp_path / "audit", tls=False)  # type: ignore[arg-type]
    with pytest.raises(Finding, match=r"processes \[4194305\] .* are gone"):
        fuzz.check()
    from tests.fuzz.fuzz_port import _Stranger

    stranger = object.__new__(_Stranger)
    stranger.heard = Verdict(Code.ADMITTED, 1, 0.0).encode()
    with pytest.raises(Finding, match="a stranger was admitted"):
        stranger.outcome()
    stranger.heard = Verdict(Code.NOT_ADMITTED, 1, 0.0).encode()
    assert stranger.outcome() == "not_admitted"
