"""Where a node listens, where others reach it, and whether that needs TLS: decided before its process is started."""

from __future__ import annotations

import ipaddress
import socket
from typing import NamedTuple

from actorflow._core.base.addresses import parse_tcp
from actorflow._core.base.errors import ClusterStartError
from actorflow._core.security.exposure import is_loopback

LOOPBACK = "127.0.0.1"
_ELSEWHERE = ("192.0.2.1", 9)
"""An address of nobody (RFC 5737): the way to it begins at the address that others know this host by. Nothing is sent there."""


class Place(NamedTuple):
    """`wide`: others than this host can reach it, or it reaches out to others."""

    host: str
    advertised: str
    wide: bool


def place_of(host: str, advertised: str, head: str) -> Place:
    """Fill in what was not given. `head`: HOST:PORT to join at, empty for the node with the head. Raises ClusterStartError."""
    where = addresses_of(*host_and_port(head)) if head else []
    if not host:
        host = _way_to(where[0]) if where else LOOPBACK
    own = addresses_of(host, 0)
    if not advertised:
        advertised = _way_to(where[0] if where else _ELSEWHERE) if any(_is_any(address) for address, _ in own) else host
    wide = not all(is_loopback(address) for address, _ in [*own, *where])
    return Place(host, advertised, wide)


def host_and_port(text: str) -> tuple[str, int]:
    """Take HOST:PORT apart; an IPv6 host stands in brackets. Raises ClusterStartError."""
    try:
        place = parse_tcp(f"tcp:{text}/")
    except ValueError:
        advice = "give HOST:PORT, with an IPv6 host in brackets"
        raise ClusterStartError.explain(which=text, what="is no address of a node", why="", next_step=advice) from None
    return place.host, place.port


def addresses_of(host: str, port: int) -> list[tuple[str, int]]:
    """The IP addresses of a host, as the system resolves it. Raises ClusterStartError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", "") or error
        why, advice = f"the name does not resolve ({reason})", "check it, or give an IP address"
        raise ClusterStartError.explain(which=host, what="cannot be used", why=why, next_step=advice) from None
    return list(dict.fromkeys((str(place[0]), int(place[1])) for _, _, _, _, place in found))


def _is_any(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_unspecified


def _way_to(where: tuple[str, int]) -> str:
    """Our own address on the way to that one. Raises ClusterStartError."""
    family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(where)  # Of a datagram socket: chooses the way, and sends nothing.
        except OSError as error:
            raise ClusterStartError.explain(
                what="the address under which other hosts reach this one cannot be found out",
                why=f"there is no way to {where[0]} ({error.strerror})",
                next_step="give it (--advertise-host), and where to listen (--host)",
            ) from None
        return str(sock.getsockname()[0])
