"""A cancel reaches the calls that the cancelled call has made, and theirs (SEMANTICS 3)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

import actorflow as af
from tests.integration.test_cancel import said

pytestmark = pytest.mark.usefixtures("cluster")


@af.remote
async def leaf(path: str) -> None:
    Path(path).write_text("started")
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        Path(path).write_text("cancelled")
        raise


@af.remote(num_cpus=0)
def sync_leaf(path: str) -> None:
    Path(path).write_text("started")
    try:
        time.sleep(30)
    except asyncio.CancelledError:
        Path(path).write_text("cancelled")
        raise


@af.remote
async def items(path: str) -> Any:
    Path(path).write_text("started")
    try:
        while True:
            yield 1
            await asyncio.sleep(0.01)
    finally:
        Path(path).write_text("cancelled")


class Nurse(af.Actor):
    async def leaf(self, path: str) -> None:
        Path(path).write_text("started")
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            Path(path).write_text("cancelled")
            raise


NAMES = ("task", "sync", "method", "stream", "deep", "deep-below")


@af.remote(num_cpus=0)
async def middle(path: str) -> None:
    ref = leaf.options(num_cpus=0).remote(f"{path}-below")
    Path(path).write_text("started")
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        Path(path).write_text("cancelled")
        raise
    await ref


def _spawn(folder: str, nurse: Any) -> list[Any]:
    return [
        leaf.options(num_cpus=0).remote(f"{folder}/task"),
        sync_leaf.remote(f"{folder}/sync"),
        nurse.leaf.remote(f"{folder}/method"),
        items.options(num_cpus=0).remote(f"{folder}/stream"),
        middle.remote(f"{folder}/deep"),
    ]


@af.remote(num_cpus=0)
async def parent(folder: str, nurse: Any) -> None:
    children = _spawn(folder, nurse)
    Path(folder, "parent").write_text("started")
    await asyncio.sleep(30)
    del children


@af.remote(num_cpus=0)
def sync_parent(folder: str, nurse: Any) -> None:
    children = _spawn(folder, nurse)
    Path(folder, "parent").write_text("started")
    time.sleep(30)
    del children


class Parent(af.Actor):
    async def run(self, folder: str, nurse: Any) -> None:
        children = _spawn(folder, nurse)
        Path(folder, "parent").write_text("started")
        await asyncio.sleep(30)
        del children


@pytest.mark.parametrize("kind", ["async task", "def task", "method"])
@pytest.mark.parametrize("how", ["ref", "direct", "timeout"])
async def test_3_a_cancel_reaches_the_children_of_every_kind_and_theirs(tmp_path: Path, kind: str, how: str) -> None:
    nurse = await Nurse.remote()
    folder = str(tmp_path)
    method = (await Parent.options(num_cpus=0).remote()).run
    call: Any = {"async task": parent, "def task": sync_parent, "method": method}[kind]
    if how == "ref":
        ref = call.remote(folder, nurse)
    elif how == "direct":
        task = asyncio.ensure_future(call(folder, nurse))
    else:
        ref = call.options(timeout=5.0).remote(folder, nurse)
    for name in NAMES:
        assert await said(tmp_path / name, "started")
    assert await said(tmp_path / "parent", "started")
    if how == "ref":
        ref.cancel()
    elif how == "direct":
        task.cancel()
    with pytest.raises((af.TaskCancelledError, asyncio.CancelledError, af.TaskTimeoutError)):
        await (task if how == "direct" else ref)
    for name in NAMES:
        assert await said(tmp_path / name, "cancelled"), name


async def test_3_recursive_false_spares_the_children(tmp_path: Path) -> None:
    @af.remote(num_cpus=0)
    async def spawn(path: str) -> None:
        ref = leaf.options(num_cpus=0).remote(path)
        await asyncio.sleep(30)
        await ref

    path = tmp_path / "child"
    ref = spawn.remote(str(path))
    assert await said(path, "started")
    ref.cancel(recursive=False)
    with pytest.raises(af.TaskCancelledError):
        await ref
    await asyncio.sleep(0.3)
    assert path.read_text() == "started"
    # It goes on, as nobody is there any more who would end it.
    rows = await af.state.list_tasks()
    assert [row["name"] for row in rows if row["state"] == "pushed"] == ["leaf"]


async def test_3_a_second_cancel_may_reach_further_than_the_first(tmp_path: Path) -> None:
    @af.remote(num_cpus=0)
    async def linger(path: str) -> None:
        ref = leaf.options(num_cpus=0).remote(path)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            Path(f"{path}-cleanup").write_text("started")
            await asyncio.sleep(2)
            raise
        await ref

    path = tmp_path / "child"
    ref = linger.remote(str(path))
    assert await said(path, "started")
    ref.cancel(recursive=False)
    assert await said(Path(f"{path}-cleanup"), "started")
    assert path.read_text() == "started"
    ref.cancel()
    assert await said(path, "cancelled")
    with pytest.raises(af.TaskCancelledError):
        await ref


async def test_3_a_child_that_was_handed_out_is_cancelled_for_all(tmp_path: Path) -> None:
    class Holder(af.Actor):
        async def keep(self, refs: list[Any]) -> None:
            self.refs = refs

        async def wait(self) -> str:
            try:
                await self.refs[0]
            except af.TaskCancelledError:
                return "it was cancelled"
            return "it was not"

    @af.remote(num_cpus=0)
    async def spawn(path: str, holder: Any) -> None:
        await holder.keep([leaf.options(num_cpus=0).remote(path)])
        Path(f"{path}-kept").write_text("started")
        await asyncio.sleep(30)

    holder = await Holder.remote()
    path = tmp_path / "child"
    ref = spawn.remote(str(path), holder)
    assert await said(path, "started")
    assert await said(Path(f"{path}-kept"), "started")
    waiting = holder.wait.remote()
    ref.cancel()
    with pytest.raises(af.TaskCancelledError):
        await ref
    assert await waiting == "it was cancelled"
    assert await said(path, "cancelled")


async def test_3_what_the_cleanup_calls_is_spared(tmp_path: Path) -> None:
    @af.remote(num_cpus=0)
    async def note(path: str) -> None:
        await asyncio.sleep(0.1)
        Path(path).write_text("noted")

    @af.remote(num_cpus=0)
    def clean(path: str) -> None:
        Path(f"{path}-began").write_text("started")
        try:
            time.sleep(30)
        finally:
            af.sync(note(path))

    path = tmp_path / "note"
    ref = clean.remote(str(path))
    assert await said(Path(f"{path}-began"), "started")
    ref.cancel()
    with pytest.raises(af.TaskCancelledError):
        await ref
    assert await said(path, "noted")
