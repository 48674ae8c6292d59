"""The program that a worker process runs under test. What it does is said in its environment, in this order:

SAY       write this to stdout
IGNORE    ignore SIGTERM
POLITE    exit with this code on SIGTERM
READY     write READY to stdout
SLEEP     sleep so many seconds (else: do not)
SAY_LAST  write this to stderr
CODE      exit with this code
"""

import os
import signal
import sys
import time

from actorflow._core.io.ports import WorkerSpec


def main(spec: WorkerSpec) -> None:
    environ = os.environ
    if "SAY" in environ:
        print(environ["SAY"])
    if "IGNORE" in environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "POLITE" in environ:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(int(environ["POLITE"])))
    if "READY" in environ:
        print("READY")
    time.sleep(float(environ.get("SLEEP", "0")))
    if "SAY_LAST" in environ:
        print(environ["SAY_LAST"], file=sys.stderr)
    sys.exit(int(environ.get("CODE", "0")))
