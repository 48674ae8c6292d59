"""Accelerators: which this machine has, and how a worker is shown its own. One file for each kind; `registry` knows them all."""
