"""The log files of workers: bounded in size and number, and no reason to stop."""

import logging
from pathlib import Path

import pytest

from actorflow._core.node.log_files import LogFiles


def test_a_file_is_turned_over_when_it_is_large(tmp_path: Path) -> None:
    files = LogFiles(str(tmp_path / "logs"), file_bytes_max=10)
    for part in (b"12345", b"67890", b"abcde", b"fghij", b"k"):
        files.append("w.log", part)
    files.close()
    assert {path.name: path.read_bytes() for path in (tmp_path / "logs").iterdir()} == {
        "w.log": b"k",
        "w.log.1": b"abcdefghij",
    }


def test_only_so_many_files_are_open(tmp_path: Path) -> None:
    files = LogFiles(str(tmp_path), open_max=2)
    for turn in range(2):
        for number in range(5):
            files.append(f"w{number}", b"%d" % turn)
    assert len(files._open) == 2
    assert [(tmp_path / f"w{number}").read_bytes() for number in range(5)] == [b"01"] * 5
    files.finish("w4")
    files.finish("w4")
    files.close()


def test_lf_1_a_disk_that_takes_no_more_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    files = LogFiles(str(tmp_path / "file" / "logs"))
    with caplog.at_level(logging.ERROR):
        files.append("w", b"1")
        files.append("w", b"2")
    [record] = caplog.records
    assert "no more worker output is written" in record.getMessage()
