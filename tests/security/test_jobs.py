"""What a worker is given: the keys and the certificate of its job, and no secret of the cluster anywhere it can look."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import actorflow as af
from actorflow import _credentials, _nodes
from actorflow._core.boot import node_launch
from actorflow._core.security import credential_files
from actorflow._core.security.credential_files import CredentialDir
from actorflow._core.security.keys import Root
from actorflow._core.security.private_files import make_private_dir, write_private
from actorflow._core.security.roles import KeyKind
from actorflow._core.security.secret import Secrets
from tests.security.strangers import Target

pytestmark = pytest.mark.timeout(240)
OPTIONS: dict[str, Any] = {"num_cpus": 1, "memory": "1GiB", "object_store_memory": "64MiB"}


@af.remote
def surroundings() -> dict[str, Any]:
    """All that a worker can see of how it came to be."""
    texts = {}
    pid = os.getpid()
    while pid > 1:  # Itself, the zygote, the node, and on to whoever has started that.
        with open(f"/proc/{pid}/environ", "rb") as file, open(f"/proc/{pid}/cmdline", "rb") as line:
            texts[f"{len(texts)} {line.read().split(bytes(1))[0].decode()}"] = file.read()
        with open(f"/proc/{pid}/stat") as stat:
            pid = int(stat.read().rsplit(")", 1)[1].split()[1])
        if len(texts) == 3:
            break
    return {"environ": dict(os.environ), "processes": texts}


@af.remote
def own_keys() -> dict[str, Any]:
    """The keys that the runtime of a worker holds."""
    from actorflow import _runtime

    core: Any = _runtime.current()
    security = core.ports.network._tcp.security
    ring = security.terms.keyring
    own = security.server.context if security.server is not None else None
    return {
        "job": core.identity.job_id,
        "roots": len(ring.roots),
        "keys": [(key.id.kind.name, key.id.subject) for key in ring.keys],
        "tls": own is not None,
    }


class Sitter(af.Actor, num_cpus=0):
    @af.method
    async def pid(self) -> int:
        return os.getpid()


def memory_of(pid: int) -> Iterator[bytes]:
    """What a process has written into its memory, area by area; what is shared aside. Raises PermissionError."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            place, rights, *_ = line.split()
            begin, end = (int(text, 16) for text in place.split("-"))
            if rights.startswith("rw") and rights.endswith("p"):
                memory.seek(begin)
                yield memory.read(end - begin)


@pytest.mark.parametrize("tls", [True, False], ids=["TLS", "in the open"])
def test_a_worker_has_the_keys_of_its_job_and_no_secret_in_its_environment(
    tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = Secrets(os.urandom(32))
    monkeypatch.setenv("ACTORFLOW_SECRET", secrets.text())
    nodes = [_nodes.start(port=0, tls=tls, **OPTIONS)]
    try:
        assert Target(nodes, tls).secrets == secrets, "a new cluster takes the secret that it is given"
        token = _credentials.make("join", credentials=nodes[0].credentials, valid_s=600)
        monkeypatch.delenv("ACTORFLOW_SECRET")
        monkeypatch.setenv("ACTORFLOW_TOKEN", token)
        nodes.append(_nodes.start(address=nodes[0].tcp, **OPTIONS))
        assert nodes[1].credentials == "", "a node that joins keeps no secret"
        for node in nodes:
            with af.init(address=node.tcp):
                seen = af.sync(surroundings())
                keys = af.sync(own_keys())
            hidden = [secrets.current.hex(), token, token.removeprefix("afjoin1_")]
            shown = [*seen["environ"].values(), *(text.decode("latin-1") for text in seen["processes"].values())]
            assert len(shown) > 5
            assert [text for text in hidden for place in shown if text in place] == []
            assert (keys["roots"], keys["keys"], keys["tls"]) == (0, [("JOB", keys["job"])], tls)
    finally:
        _nodes.stop()


def test_a_worker_of_a_joined_node_has_the_secret_nowhere_in_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the fork of the zygote would have left it: what a node joins with comes after that."""
    nodes = [_nodes.start(port=0, **OPTIONS)]
    try:
        token = _credentials.make("join", credentials=nodes[0].credentials, valid_s=600)
        make_private_dir(str(tmp_path / "t"))
        write_private(str(tmp_path / "t" / "token"), token.encode())
        nodes.append(_nodes.start(address=nodes[0].tcp, token_file=str(tmp_path / "t" / "token"), **OPTIONS))
        secret = Target(nodes, False).secrets.current
        roots = [Root.of(secret, kind).material for kind in KeyKind]
        with af.init(address=nodes[1].tcp) as session:
            sitter = Sitter.options(scheduling_strategy=af.NodeAffinity(session._driver.core.node_id)).remote()  # type: ignore[call-overload]
            pid = af.sync(sitter.pid())
            job = session._driver.core.identity.job_id
            try:
                areas = list(memory_of(pid))
            except PermissionError as error:
                pytest.skip(f"the memory of another process cannot be read here: {error}")
    finally:
        _nodes.stop()
    own = Root.of(secret, KeyKind.JOB).key(job).material
    assert any(own in area for area in areas), "the search finds what is there"
    hidden = [secret, secret.hex().encode(), token.encode(), *roots]
    assert [number for number, needle in enumerate(hidden) if any(needle in area for area in areas)] == []


def test_a_local_cluster_passes_no_secret_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in node_launch.SECRET_VARIABLES:
        monkeypatch.setenv(name, f"value-of-{name}")
    with af.init(**OPTIONS):
        seen = af.sync(surroundings())
    assert not set(node_launch.SECRET_VARIABLES) & set(seen["environ"])
    ours = list(seen["processes"].items())[:3]
    assert len(ours) == 3
    assert [line for line, text in ours if b"value-of-" in text] == []


def test_the_names_of_the_variables_are_the_same_everywhere() -> None:
    names = (credential_files.SECRET_VARIABLE, credential_files.TOKEN_VARIABLE, credential_files.TOKEN_FILE_VARIABLE)
    assert names == node_launch.SECRET_VARIABLES
    assert credential_files.without_secrets(dict.fromkeys([*names, "PATH"], "x")) == {"PATH": "x"}


def test_the_directory_of_a_cluster_is_for_its_user_alone() -> None:
    node = _nodes.start(port=0, tls=True, **OPTIONS)
    try:
        directory = CredentialDir(node.credentials)
        modes = {name: os.stat(os.path.join(directory.path, name)).st_mode & 0o777 for name in os.listdir(directory.path)}
        assert set(modes) >= {"secret", "authority.pem", "authority.key"}
        assert set(modes.values()) == {0o600}
        assert os.stat(directory.path).st_mode & 0o777 == 0o700
    finally:
        _nodes.stop()
