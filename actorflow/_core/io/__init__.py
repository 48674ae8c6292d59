"""Doing it: the ports and their real adapters (sockets, processes, shared memory, loops)."""
