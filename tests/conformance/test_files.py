"""The contract of Files."""

import asyncio

import pytest

from tests.conformance.worlds import FilesWorld


def test_what_is_appended_is_read_and_synced(files_world: FilesWorld) -> None:
    async def scenario() -> None:
        files = files_world.files
        await files.append("log", b"one ")
        await files.append("log", b"two")
        await asyncio.gather(files.sync("log"), files.append("log", b" three"))
        assert files.read("log") == b"one two three"

    files_world.run(scenario())


def test_replace_gives_a_new_content(files_world: FilesWorld) -> None:
    async def scenario() -> None:
        files = files_world.files
        await files.replace("state", [b"a" * 10, b"b"])
        await files.append("state", b"c")
        assert files.read("state") == b"a" * 10 + b"bc"
        await files.replace("state", (bytes([n]) for n in range(3)))
        assert files.read("state") == b"\0\1\2"
        await files.append("state", b"\3")
        assert files.read("state") == b"\0\1\2\3", "to the new content, not the old one"

    files_world.run(scenario())


def test_paths_and_remove(files_world: FilesWorld) -> None:
    async def scenario() -> None:
        files = files_world.files
        assert files.paths("") == []
        for path in ("b-2", "a-1", "b-1"):
            await files.append(path, b"x")
        await files.replace("b-3", [b"y"])
        assert files.paths("b-") == ["b-1", "b-2", "b-3"]
        files.remove("b-2")
        files.remove("b-3")
        assert files.paths("") == ["a-1", "b-1"]
        for missing in ("b-2", "b-3", "never"):
            with pytest.raises(FileNotFoundError):
                files.remove(missing)
            with pytest.raises(FileNotFoundError):
                files.read(missing)
        await files.append("b-2", b"anew")
        assert files.read("b-2") == b"anew"

    files_world.run(scenario())


def test_a_replace_that_fails_leaves_the_old_content_and_no_other_file(files_world: FilesWorld) -> None:
    async def scenario() -> None:
        files = files_world.files
        await files.replace("state", [b"old"])
        with files_world.full(), pytest.raises(OSError, match=r"[Nn]o space"):
            await files.replace("state", [b"new" * 100_000])
        assert files.read("state") == b"old"
        assert files.paths("") == ["state"]

    files_world.run(scenario())


def test_an_append_to_a_full_disk_says_so_and_may_have_written_a_part(files_world: FilesWorld) -> None:
    async def scenario() -> None:
        files = files_world.files
        await files.append("log", b"before")
        with files_world.full(), pytest.raises(OSError, match=r"[Nn]o space"):
            await files.append("log", b"x" * 300_000)
        content = files.read("log")
        assert content.startswith(b"before")
        assert len(content) < 300_000

    files_world.run(scenario())
