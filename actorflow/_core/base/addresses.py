"""Addresses of processes, as messages name them.

    unix:/path/to/a.sock              within a machine
    tcp:HOST:PORT/NAME                the process NAME behind the port of its node; an IPv6 host stands in brackets
    tcp:HOST:PORT/NAME,unix:/path     both: whoever is on the same machine takes the second
    tcp:HOST:PORT/NAME@JOB            the process belongs to that job: others need a pass to speak with it (security/passes.py)
"""

from __future__ import annotations

from typing import NamedTuple

SCHEME = "unix:"
TCP_SCHEME = "tcp:"
PATH_BYTES_MAX = 107
"""What fits into `sun_path` of a socket address, without the closing zero."""


class TcpAddress(NamedTuple):
    """Where a process is reached over TCP. `name`: its id, `head`, or nothing for whoever owns the port. `job`: empty for no job's."""

    host: str
    port: int
    name: str = ""
    job: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        job = f"@{self.job}" if self.job else ""
        return f"{TCP_SCHEME}{host}:{self.port}/{self.name}{job}"


def parse_tcp(address: str) -> TcpAddress:
    """Take a `tcp:` address apart. Raises ValueError with what is right."""
    wrong = ValueError(f"cannot use address {address!r}: expected tcp:HOST:PORT/NAME, with an IPv6 host in brackets")
    if not address.startswith(TCP_SCHEME):
        raise wrong
    place, slash, whom = address.removeprefix(TCP_SCHEME).partition("/")
    name, _, job = whom.partition("@")
    host, colon, port = place.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not (slash and colon and host and port.isascii() and port.isdigit() and int(port) < 65_536) or (":" in host) != bracketed:
        raise wrong
    return TcpAddress(host, int(port), name, job)


def split(address: str) -> tuple[str, str]:
    """The parts of an address for TCP and for the same machine; an empty one where there is none."""
    if not address.startswith(TCP_SCHEME):
        return "", address
    tcp, _, path = address.partition(f",{SCHEME}")
    return tcp, f"{SCHEME}{path}" if path else ""


def with_job(address: str, job_id: str) -> str:
    """The address of a process of this job. Within a machine nobody asks for that, and the address stays as it is."""
    tcp, local = split(address)
    if not tcp or not job_id:
        return address
    return f"{tcp}@{job_id},{local}" if local else f"{tcp}@{job_id}"


def job_of(address: str) -> str:
    """The job that an address names; empty where it names none."""
    return split(address)[0].partition("/")[2].partition("@")[2]
