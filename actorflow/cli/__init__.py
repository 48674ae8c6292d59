"""The command line: `actorflow start`, `stop`, `status`, `drain`, `token` and `secret`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import actorflow as af
from actorflow.cli import drain, nodes, security, status

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C has ended, as shells have it."""


class _Parser(argparse.ArgumentParser):
    """Where an option is unknown and another one is missing, argparse says only what is missing: of a misspelt one that misleads.

    The parsers of the commands are of this class too.
    """

    _given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in the base."""
        self._given = sys.argv[1:] if args is None else args
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print `message`, and what is unknown, and exit with 2."""
        unknown = [word for word in self._given if word[:2] == "--" and word[2:] and not self._may_know(word.partition("=")[0])]
        if unknown and "required" in message:
            message = f"unrecognized arguments: {' '.join(unknown)}; {message}"
        super().error(message)

    def _may_know(self, option: str) -> bool:
        return any(known.startswith(option) for known in self._option_string_actions)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0, 1 for an error of the cluster's, 2 for wrong arguments, 130 after Ctrl-C.

    Whoever reads the output may want no more of it, as `head` does: that is no error, as what was asked is done by then.
    """
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())  # What is still to be written, as Python ends, goes there.
        os.close(null)
        return 0


def _run(arguments: Sequence[str] | None) -> int:
    parser = _Parser(prog="actorflow", description="actorflow: asyncio-native actors and tasks")
    parser.add_argument("--version", action="version", version=f"actorflow {af.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for room in (status, nodes, drain, security):
        room.add_commands(commands)
    options = parser.parse_args(arguments)
    try:
        text = options.run(options)
    except (af.ActorflowError, ValueError) as error:
        print(f"actorflow {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"actorflow {options.command}: interrupted{f'; {error}' if str(error) else ''}", file=sys.stderr)
        return INTERRUPTED
    print(text)
    return 0
