"""Runs in a process that does nothing else, and the seeds and plans that ever failed."""

from __future__ import annotations

import faulthandler
import logging
import warnings
from pathlib import Path

from actorflow.testing import Violation
from tests.sim.whole.draw import draw
from tests.sim.whole.faults import FAULTS
from tests.sim.whole.plan import Plan, parse
from tests.sim.whole.run import Outcome, run
from tests.sim.whole.verbs import VERBS

HERE = Path(__file__).parent
SEEDS_FILE = HERE / "failed_seeds.txt"
PLANS = HERE / "failed_plans"
HUNG_S = 300
"""A run that takes longer shows where it stands, and ends the process."""


def begin() -> None:
    """Once in each process."""
    warnings.simplefilter("error")
    # What dies in a run dies on purpose.
    logging.getLogger().addHandler(logging.NullHandler())


def quietly(what: int | str | Plan) -> Outcome:
    """Run a seed, a plan that has failed, by its name, or a plan; whatever escapes is a violation too."""
    plan = draw(what) if isinstance(what, int) else failed_plans()[what] if isinstance(what, str) else what
    faulthandler.dump_traceback_later(HUNG_S, exit=True)
    try:
        return run(plan)
    except Exception as error:
        return Outcome(plan, [Violation("WH-7", f"{type(error).__name__}: {error}")])
    finally:
        faulthandler.cancel_dump_traceback_later()


def read(text: str) -> Plan:
    """Read a plan whose operations and faults are known. Raises PlanError."""
    return parse(text, VERBS, FAULTS)


def failed_seeds() -> list[int]:
    """Every seed that ever failed."""
    lines = (line.partition("#")[0].strip() for line in SEEDS_FILE.read_text().splitlines())
    return [int(line) for line in lines if line]


def open_defect(name: str) -> str:
    """What a plan shows that is not mended yet, from its line `# open: ...`; empty when it is to pass."""
    first = (PLANS / f"{name}.txt").read_text().partition("\n")[0]
    return first.removeprefix("# open: ") if first.startswith("# open: ") else ""


def failed_plans() -> dict[str, Plan]:
    """Every plan that ever failed, by the name of its file: seeds give other plans when the draw changes, plans stay."""
    return {path.stem: read(path.read_text()) for path in sorted(PLANS.glob("*.txt"))}
