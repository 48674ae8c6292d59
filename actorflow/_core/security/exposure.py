"""May this process listen there? Pure.

XP-1: nothing listens beyond loopback without a secret and TLS.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable


def is_loopback(address: str) -> bool:
    """Whether an IP address reaches this host only. `0.0.0.0`, `::` and whatever is no address do not count."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_loopback


def listening_problem(host: str, addresses: Iterable[str], *, secret: bool, tls: bool) -> str:
    """Why `host`, which resolves to `addresses`, must not be listened on, and what to do; empty when it may."""
    wide = [address for address in addresses if not is_loopback(address)]
    if not wide or (secret and tls):
        return ""
    missing = " and ".join(name for name, there in (("a cluster secret", secret), ("TLS", tls)) if not there)
    return (
        f"will not listen on {host} ({', '.join(wide)}), which other hosts may reach, without {missing}: "
        "anybody there could run code here. Listen on 127.0.0.1, or start the head with its directory of secrets and certificates"
    )
