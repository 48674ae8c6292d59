"""Drives one kernel by nbclient: reads cells as JSON lines, runs them, and writes what they show. A process of its own, so that
the loops and sockets of Jupyter's clients are nobody else's.

    python -m tests.notebook.driver asyncio|uvloop DIRECTORY
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import nbclient
import nbformat
from jupyter_client.manager import AsyncKernelManager

CELL_TIMEOUT_S = 30
UVLOOP = "import uvloop; uvloop.install(); from ipykernel.kernelapp import launch_new_instance as launch; launch()"


def shown(output: Any) -> str:
    if output.output_type == "stream":
        return str(output.text)
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}"
    return str(output.data["text/plain"])


async def drive(kind: str, directory: str) -> None:
    kernel = AsyncKernelManager(kernel_name="python3")
    if kind == "uvloop":
        spec = kernel.kernel_spec
        spec.argv = [spec.argv[0], "-c", UVLOOP, "-f", "{connection_file}"]
    notebook = nbformat.v4.new_notebook()
    resources = {"metadata": {"path": directory}}
    client = nbclient.NotebookClient(notebook, km=kernel, timeout=CELL_TIMEOUT_S, allow_errors=True, resources=resources)
    async with client.async_setup_kernel():
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            cell = nbformat.v4.new_code_cell(asked["code"])
            notebook.cells.append(cell)
            running = asyncio.ensure_future(client.async_execute_cell(cell, len(notebook.cells) - 1))
            interrupted_at = 0.0
            if asked["interrupt_after_s"] is not None:
                await asyncio.wait([running], timeout=asked["interrupt_after_s"])
                interrupted_at = time.time()
                await kernel.interrupt_kernel()
            try:
                await running
                text = "".join(map(shown, cell.outputs))
            except Exception as error:
                text = f"the kernel failed: {error!r}"
            print(json.dumps({"shown": text, "interrupted_at": interrupted_at}), flush=True)


if __name__ == "__main__":
    asyncio.run(drive(*sys.argv[1:]))
