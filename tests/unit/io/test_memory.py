"""How much memory there is: the machine's, and the bounds of control groups of both kinds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actorflow._core.io.memory import Gauge, private_bytes

GIB = 1 << 30
MEMINFO = "MemTotal:       16777216 kB\nMemFree:          100000 kB\nMemAvailable:   12582912 kB\nHugePages_Total:       0\n"


def system(root: Path, files: dict[str, str]) -> Gauge:
    for path, text in {"proc/meminfo": MEMINFO, **files}.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Gauge(str(root))


def test_the_machine(tmp_path: Path) -> None:
    use = system(tmp_path, {"proc/self/cgroup": "0::/user.slice\n"}).use()
    assert use == (4 * GIB, 16 * GIB, "on this machine")


def test_a_bound_of_a_control_group_that_is_nearer_counts(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/pod/main"
    gauge = system(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/main\n",
            f"{group}/memory.max": f"{2 * GIB}\n",
            f"{group}/memory.current": f"{3 * GIB // 2}\n",
            f"{group}/memory.stat": f"anon 5\ninactive_file {GIB // 2}\n",
        },
    )
    assert gauge.use() == (GIB, 2 * GIB, "in the control group /sys/fs/cgroup/pod/main")


def test_the_bound_may_be_on_a_group_around_ours(tmp_path: Path) -> None:
    gauge = system(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/main\n",
            "sys/fs/cgroup/pod/main/memory.max": "max\n",
            "sys/fs/cgroup/pod/main/memory.current": "1\n",
            "sys/fs/cgroup/pod/memory.max": f"{GIB}\n",
            "sys/fs/cgroup/pod/memory.current": f"{GIB // 2}\n",
        },
    )
    assert gauge.use() == (GIB // 2, GIB, "in the control group /sys/fs/cgroup/pod")


def test_a_container_sees_its_group_as_the_root(tmp_path: Path) -> None:
    gauge = system(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": f"{GIB}\n",
            "sys/fs/cgroup/memory.current": f"{GIB}\n",
        },
    )
    assert gauge.use() == (GIB, GIB, "in the control group /sys/fs/cgroup")


@pytest.mark.parametrize("path", ["/docker/1234", "/not/seen/from/inside"])
def test_the_older_kind_of_control_groups(tmp_path: Path, path: str) -> None:
    group = f"sys/fs/cgroup/memory{path if path.startswith('/docker') else ''}"
    gauge = system(
        tmp_path,
        {
            "proc/self/cgroup": f"9:name=systemd:/\n4:cpu,memory:{path}\n1:cpu:/\n0::/\n",
            f"{group}/memory.limit_in_bytes": f"{GIB}\n",
            f"{group}/memory.usage_in_bytes": f"{GIB}\n",
            f"{group}/memory.stat": f"total_inactive_file {GIB // 4}\n",
        },
    )
    use = gauge.use()
    assert use is not None
    assert (use.used_bytes, use.limit_bytes) == (3 * GIB // 4, GIB)


def test_a_group_without_a_bound_has_none(tmp_path: Path) -> None:
    gauge = system(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
        },
    )
    assert gauge.use() == (4 * GIB, 16 * GIB, "on this machine")


def test_where_nobody_says_there_is_no_number(tmp_path: Path) -> None:
    gauge = Gauge(str(tmp_path))
    assert gauge.use() is None
    assert gauge.system_kills() == 0
    assert private_bytes(1 << 30) == 0


def test_what_the_system_has_killed_is_counted(tmp_path: Path) -> None:
    assert system(tmp_path, {"proc/vmstat": "nr_free_pages 7\noom_kill 3\n"}).system_kills() == 3


def test_this_machine() -> None:
    use = Gauge().use()
    assert use is not None
    assert 0 < use.used_bytes < use.limit_bytes
    before = private_bytes(os.getpid())
    block = bytearray(os.urandom(64)) * (1 << 20)
    assert private_bytes(os.getpid()) - before > 50 << 20
    del block
