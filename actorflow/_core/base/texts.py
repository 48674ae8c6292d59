"""Text that messages can carry. Python has text that UTF-8 has not: file names of undecodable bytes become lone surrogates."""

from __future__ import annotations

from actorflow._core.base.errors import OptionError


def made_fit(text: str) -> str:
    """`text` with its lone surrogates written out, as in `caf\\udce9`: for people, who see what is wrong with it."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def check_encodable(option: str, text: str) -> None:
    """Refuse text that no message can carry. Raises OptionError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise OptionError.explain(
            which=f"{option}={text!r}",
            what=f"is no text that UTF-8 can carry ({error.reason})",
            next_step="Give it other text; a file name of undecodable bytes is none",
            option=option,
        ) from None


ESCAPED = "\0"
"""How a path begins that is written as the hexadecimal form of its bytes: no path has it in itself."""


def path_to_text(path: str) -> str:
    """A path as messages carry it. A directory may have any name that bytes can spell, and a program may live in it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return ESCAPED + path.encode("utf-8", "surrogateescape").hex()
    return path


def text_to_path(text: str) -> str:
    """The reverse of `path_to_text`."""
    if not text.startswith(ESCAPED):
        return text
    return bytes.fromhex(text.removeprefix(ESCAPED)).decode("utf-8", "surrogateescape")
