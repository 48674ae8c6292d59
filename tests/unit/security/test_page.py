"""docs/security.md: the tests that it names exist, and its numbers are those of the code."""

import re
from pathlib import Path

from actorflow._core.security import authority, lobby, preface, wire
from actorflow._core.security.errors import Code

FOLDERS = ("unit/security", "security", "fuzz", "unit/node")
"""Where the tests are that the page names."""
PAGE = (Path(__file__).resolve().parents[3] / "docs" / "security.md").read_text()


def test_every_test_that_the_page_names_exists() -> None:
    tests = Path(__file__).resolve().parents[2]
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE)
    assert len(named) > 25
    texts = {file: next(tests / folder / file for folder in FOLDERS if (tests / folder / file).exists()).read_text() for file, _ in named}
    assert [name for file, name in named if f"def {name}(" not in texts[file]] == []


def test_every_line_of_the_table_names_a_test() -> None:
    table = PAGE.partition("## Threats")[2].partition("What concerns browsers")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| threat")]
    assert len(rows) > 20
    assert [row for row in rows if "::test_" not in row] == []


def test_the_numbers_are_those_of_the_code() -> None:
    for name, size in (("preface", wire.PREFACE_BYTES), ("opening", wire.OPENING_BYTES), ("answer", wire.ANSWER_BYTES),
                       ("proof", wire.PROOF_BYTES), ("verdict", wire.VERDICT_BYTES)):  # fmt: skip
        assert f"{name}, {size} bytes" in PAGE
    assert f"takes at most {wire.ACCEPTED_BYTES_MAX} bytes" in PAGE
    assert f"{preface.HANDSHAKE_TIMEOUT_S:.0f} s for the whole handshake" in PAGE
    assert f"{lobby.TOTAL_MAX} connections before they are known and {lobby.SOURCE_MAX} from one host" in PAGE
    assert (preface.CLOCK_SKEW_S_MAX, authority.CERTIFICATE_VALID_S) == (600.0, 86_400.0)
    for code in Code:
        assert code is Code.ADMITTED or f"{code.value} {code.name.lower().replace('_', ' ')}" in PAGE
