"""Chaos on real processes: a program that knows every right answer, on a cluster that is killed, stopped and cut at random from a seed.

    python -m actorflow.testing.chaos --seed 7 --seconds 60

schedule.py    what is harmed and when: pure, from the seed
work.py        the kinds of work, and how a call of each may end
units.py       what runs in the cluster; program.py calls it, in a process of its own (driver.py)
systems/       actorflow and Ray behind one face: what the program calls, and what is done to the nodes
conductor.py   a run: nodes, program, faults, end
judge.py       what it comes to, with recovery.py; both pure
report.py      the figures; options.py the command line
"""
