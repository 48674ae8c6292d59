"""The programs that are measured: one per system, each run in its own environment.

serve.py        the program side of the conversation with the conductor, and the timing loop
actorflow_.py   ray_.py   xoscar_.py   floor.py     the rows of `benchmarks.rows`
floor_wire.py   the floor itself: framed, pickled calls over a unix socket
startup_actorflow.py   startup_ray.py               the scenes of `benchmarks.startup`
"""
