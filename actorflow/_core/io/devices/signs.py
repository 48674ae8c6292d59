"""Where each kind of accelerator leaves traces. Looked at before anything of a kind is imported: most nodes have none of them."""

from __future__ import annotations

import os

SIGNS = {
    # The last: Windows has the driver, and this is WSL.
    "nvidia": ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/usr/lib/wsl/lib/libnvidia-ml.so.1"),
    "amd": ("/sys/class/kfd/kfd/topology/nodes",),
    "tpu": ("/dev/vfio", *(f"/dev/accel{number}" for number in range(8))),
}


def any_sign(root: str = "/") -> bool:
    """False when this machine has nothing that a kind could find."""
    return any(os.path.exists(root + path) for paths in SIGNS.values() for path in paths)
