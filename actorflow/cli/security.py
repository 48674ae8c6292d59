"""`actorflow token` and `actorflow secret`: on the host of the head, who may join its cluster."""

from __future__ import annotations

import argparse
from typing import Any

from actorflow import _credentials

MINUTES_DEFAULT = 60.0
VALID_MINUTES_MAX = 100 * 365 * 24 * 60.0


def add_commands(commands: Any) -> None:
    """Add them to the parser's commands."""
    token = commands.add_parser("token", help="make a token: for a machine that is to join, or for a driver outside the cluster")
    token.add_argument("kind", choices=("join", "client"))
    token.add_argument("--valid-minutes", type=float, default=MINUTES_DEFAULT, help=f"default: {MINUTES_DEFAULT:g}; 0: for ever")
    token.add_argument("--single-use", action="store_true", help="for one machine only; of join tokens")
    token.add_argument("--output", default="", metavar="FILE", help="write it there, for this user only (default: print it)")
    secret = commands.add_parser("secret", help="replace the cluster secret while the cluster runs, in three steps")
    secret.add_argument("step", choices=_credentials.STEPS, help="accept a new one too; use the new one; accept the new one only")
    for command in (token, secret):
        command.add_argument("--credentials", default="", metavar="DIRECTORY", help="of the head (default: that of the one on this host)")
    token.set_defaults(run=_token)
    secret.set_defaults(run=_secret)


def _token(options: argparse.Namespace) -> str:
    if not 0 <= options.valid_minutes < VALID_MINUTES_MAX:
        raise ValueError(f"--valid-minutes {options.valid_minutes:g}: from 0, which is for ever, to {VALID_MINUTES_MAX:g}, a hundred years")
    valid_s = options.valid_minutes * 60 or None
    if options.single_use and (options.kind != "join" or valid_s is None):
        raise ValueError("--single-use is for join tokens that end: use `actorflow token join --single-use --valid-minutes 60`")
    return _credentials.make(
        options.kind, credentials=options.credentials, valid_s=valid_s, single_use=options.single_use, output=options.output
    )


def _secret(options: argparse.Namespace) -> str:
    known = _credentials.replace_secret(options.step, credentials=options.credentials)
    return f"accepted from now on, the first in use: {known}. The head reads it within seconds, and tells the nodes"
