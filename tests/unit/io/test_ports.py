"""The records of the ports."""

import pytest

from actorflow._core.io.ports import ProcessExit


@pytest.mark.parametrize(
    ("exit_code", "signal", "detail", "words"),
    [
        (0, None, "", "exited with code 0"),
        (None, 9, "", "killed by SIGKILL"),
        (None, 40, "", "killed by signal 40"),
        (None, None, "could not be started: no room", "could not be started: no room"),
        (None, None, "", "ended, cause unknown"),
    ],
)
def test_the_end_of_a_process_in_words(exit_code: int | None, signal: int | None, detail: str, words: str) -> None:
    assert ProcessExit("w1", 7, exit_code, signal, 0, detail).describe() == words
