"""The node role: it owns the resources, the worker processes and the shared memory of one machine."""
