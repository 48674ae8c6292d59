"""The command line before it does anything."""

import pytest

from actorflow.cli import main


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("start --bogus", "actorflow start: error: unrecognized arguments: --bogus; one of the arguments --head --address is required"),
        ("start --adress=a:1 --port 1", "unrecognized arguments: --adress=a:1; one of the arguments --head --address is required"),
        ("start --num-cpu 1", "actorflow start: error: one of the arguments --head --address is required"),
        ("start", "actorflow start: error: one of the arguments --head --address is required"),
        ("start --head --bogus", "actorflow: error: unrecognized arguments: --bogus"),
        ("drain --bogus", "actorflow drain: error: unrecognized arguments: --bogus; the following arguments are required: NODE"),
    ],
)
def test_an_unknown_option_is_named(given: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(given.split())
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(text)
