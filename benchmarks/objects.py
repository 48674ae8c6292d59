"""The objects benchmark: what moves through shared memory, beside Ray and memcpy, interleaved.

    python -m benchmarks.objects                       all rows, 5 rounds of 1 s samples
    python -m benchmarks.objects --rows put --rounds 3 --json objects.json

Options and table are those of `benchmarks.core`.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # also as `python benchmarks/objects.py`
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import core
from benchmarks.rows import OBJECT_ROWS

if __name__ == "__main__":
    sys.exit(core.main(OBJECT_ROWS))
