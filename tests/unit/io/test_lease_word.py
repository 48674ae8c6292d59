"""io/lease_word.py: LV-7, between real processes."""

from __future__ import annotations

import math
import os
import time

from actorflow._core.io.lease_word import LeaseWord


def test_lv_7_a_forked_process_reads_what_the_node_has_written() -> None:
    word = LeaseWord()
    assert word.left_s() == math.inf, "a node without a lease"
    for until, may_act in ((time.monotonic() + 60, True), (time.monotonic() - 0.001, False), (time.monotonic() + 60, True)):
        asking, asked = os.pipe()
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.read(asking, 1)
            os.write(writing, b"1" if word.left_s() > 0 else b"0")
            os._exit(0)
        word.extend(until)  # After the fork: it is one page for both.
        os.write(asked, b"?")
        try:
            assert (os.read(reading, 1) == b"1") is may_act
        finally:
            os.waitpid(child, 0)
            for fd in (asking, asked, reading, writing):
                os.close(fd)
