"""TLS 1.3 for the bare floors: a certificate of their own, and the two sides' contexts."""

from __future__ import annotations

import os
import ssl
import time
from pathlib import Path

from actorflow._core.security.authority import Authority, new_request


def make_credentials(folder: Path) -> ssl.SSLContext:
    """Make a certificate for the server in this folder; returns what the client trusts it by."""
    authority = Authority.create("floor", wall_time=time.time())
    key, request = new_request()
    (folder / "certificate.pem").write_bytes(authority.issue(request, ["node/floor"], wall_time=time.time()))
    (folder / "key.pem").write_bytes(key)
    os.chmod(folder / "key.pem", 0o600)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(cadata=authority.certificate_pem().decode())
    return context


def server_side(folder: Path) -> ssl.SSLContext:
    """The server's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context
