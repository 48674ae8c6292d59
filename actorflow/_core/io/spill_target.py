"""Where objects are spilled: what the user has named, checked where it was written, and made into a place by the node."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from actorflow._core.base.errors import OptionError, OptionTypeError
from actorflow._core.base.texts import check_encodable

if TYPE_CHECKING:
    from actorflow._core.io.spill_files import SpillPlace

OPTION = "object_spilling_directory"
SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
"""Of the URIs that pyarrow.fs takes those that lead to another machine. `file` is a directory."""


def check_target(where: str, value: object) -> str:
    """Return the directory, as an absolute path, or the URI; empty for None. Raises OptionError, which names what is wrong.

    A directory is made if it is not there. A URI is not tried: that is for the node, when it first needs room.
    """
    if value is None:
        return ""
    which = f"{where}({OPTION}={value!r})"
    if not isinstance(value, str | os.PathLike):
        raise OptionTypeError(f'{which}: a directory or a URI is needed, as in "/scratch/spill" or "s3://bucket/spill"', option=OPTION)
    text = os.fspath(value)
    if not isinstance(text, str) or not text:
        raise OptionError(f"{which}: a directory or a URI is needed; leave it out for the session directory", option=OPTION)
    check_encodable(which, text)
    scheme, mark, _ = text.partition("://")
    if not mark:
        return _usable(which, os.path.abspath(text))
    if scheme == "file":
        return _usable(which, os.path.abspath(urlsplit(text).path))
    if scheme not in SCHEMES:
        raise OptionError(f"{which}: URIs that begin with {', '.join(f'{known}://' for known in SCHEMES)} are known", option=OPTION)
    if "@" in urlsplit(text).netloc and scheme not in ("abfs", "abfss"):
        what = "it has a name or a key in it, and every user of the machine sees the command line of a node"
        next_step = "put credentials into the environment or the files of their provider, as in AWS_ACCESS_KEY_ID"
        raise OptionError(f"{where}({OPTION}): {what}: {next_step}", option=OPTION)
    if find_spec("pyarrow") is None:
        raise OptionError(f'{which}: pyarrow reads and writes there, and is not installed: pip install "actorflow[data]"', option=OPTION)
    return text


def place_of(target: str, session_directory: str, session_id: str) -> SpillPlace:
    """The place for a node. `session_directory`: where files go when the user has named nothing."""
    if "://" in target:
        from actorflow._core.io.spill_remote import RemotePlace

        return RemotePlace(target, session_id)
    from actorflow._core.io.spill_directory import DirectoryPlace, NamedDirectoryPlace

    return NamedDirectoryPlace(target, session_id) if target else DirectoryPlace(session_directory)


def _usable(which: str, path: str) -> str:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{which}: {error.strerror} ({error.filename}): name a directory that exists", option=OPTION) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise OptionError(f"{which}: this user may not write there: name another directory", option=OPTION)
    return path
