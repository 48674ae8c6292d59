"""The log files of workers: one for each worker that prints, turned over when it is large."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from typing import BinaryIO

log = logging.getLogger(__name__)

FILE_BYTES_MAX = 100 * 1024 * 1024
"""At this size a file becomes `.1`, which is overwritten: a worker has two of them at most."""
OPEN_MAX = 64
"""Files kept open; of a thousand printing workers the rest is opened again when it prints."""


class LogFiles:
    """Appends to files in one directory.

    LF-1: when the disk takes no more, that is logged once and nothing is written any more: output still
          reaches the driver, and a node does not stop for its logs.
    """

    def __init__(self, directory: str, *, file_bytes_max: int = FILE_BYTES_MAX, open_max: int = OPEN_MAX) -> None:
        self._directory = directory
        self._file_bytes_max = file_bytes_max
        self._open_max = open_max
        self._open: OrderedDict[str, BinaryIO] = OrderedDict()
        self._broken = False

    def append(self, name: str, data: bytes) -> None:
        """Add to the file `name`. It is in the file when this returns."""
        if self._broken:
            return
        try:
            file = self._file(name)
            if file.tell() + len(data) > self._file_bytes_max:
                file = self._turn_over(name)
            file.write(data)
        except OSError as error:
            self._broken = True
            log.error("no more worker output is written to %s: %s", self._directory, error)

    def finish(self, name: str) -> None:
        """Nothing more is added to `name`."""
        file = self._open.pop(name, None)
        if file is not None:
            file.close()

    def close(self) -> None:
        """Close all files."""
        for name in list(self._open):
            self.finish(name)

    def _file(self, name: str) -> BinaryIO:
        file = self._open.get(name)
        if file is None:
            if len(self._open) >= self._open_max:
                self._open.popitem(last=False)[1].close()
            os.makedirs(self._directory, exist_ok=True)
            file = self._open[name] = open(f"{self._directory}/{name}", "ab", buffering=0)  # noqa: SIM115 - kept
        else:
            self._open.move_to_end(name)
        return file

    def _turn_over(self, name: str) -> BinaryIO:
        self.finish(name)
        path = f"{self._directory}/{name}"
        os.replace(path, f"{path}.1")
        return self._file(name)
