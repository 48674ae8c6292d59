"""Drivers and workers: owning objects, making calls, running them."""
