"""Addresses of processes, as messages name them: `unix:/path/to/a.sock`."""

from __future__ import annotations

SCHEME = "unix:"
PATH_BYTES_MAX = 107
"""What fits into `sun_path` of a socket address, without the closing zero."""
