"""The benchmarks: actorflow beside Ray, xoscar and the bare floor of each thing, interleaved in one run.

    core.py       the rows of Ray's `ray_perf`: `python -m benchmarks.core [--check]`
    startup.py    time to first result, memory, actors a second: `python -m benchmarks.startup [--check]`
    rows.py       what the rows of core.py are and what each of them measures
    targets.py    the figures of the acceptance list, in one place
    conductor.py  alternates the systems within a row and collects the samples
    report.py     medians, ratios, the table and the JSON
    processes.py  process trees: their memory, their CPU, their end
    remote.py     starts a system's process and talks to it in JSON lines
    systems/      one program per system and purpose, each run by the interpreter of its own environment

Only ratios within one run are worth quoting; `docs/performance.md` has the last ones and says how they came
about.
"""
