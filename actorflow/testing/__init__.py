"""Simulated processes, network, files and time."""
