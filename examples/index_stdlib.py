"""Index the source text of Python's standard library in parallel, ask the index a question, and check the answer.

    python examples/index_stdlib.py [--files N] [--query WORD ...]

Tasks read and count the words of the files, a batch of files each. An actor holds the index; it is fed while the tasks run and streams
its answer back. At the end the same is done in this one process, and both answers must be equal.
"""

from __future__ import annotations

import argparse
import re
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import actorflow as af

WORD = re.compile(r"[A-Za-z_]{3,}")
BATCH_FILES = 24


def count_words(paths: list[str]) -> dict[str, dict[str, int]]:
    """Word counts by file. Shared by the cluster's tasks and the check."""
    counts: dict[str, dict[str, int]] = {}
    for path in paths:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        counts[path] = dict(Counter(word.lower() for word in WORD.findall(text)))
    return counts


@af.remote
def index_batch(paths: list[str]) -> dict[str, dict[str, int]]:
    """A task: the word counts of a batch of files."""
    return count_words(paths)


class Index(af.Actor):
    """An actor: word -> file -> count."""

    def __init__(self) -> None:
        self.postings: dict[str, dict[str, int]] = {}
        self.files = 0

    @af.method
    async def add(self, counts: dict[str, dict[str, int]]) -> int:
        """Take in the counts of some files; returns how many files are indexed now."""
        merge(self.postings, counts)
        self.files += len(counts)
        return self.files

    @af.method
    async def search(self, words: list[str], limit: int) -> AsyncIterator[tuple[str, int]]:
        """The files with the most hits, best first, as a stream of (path, hits)."""
        for path, hits in rank(self.postings, words)[:limit]:
            yield path, hits


def merge(postings: dict[str, dict[str, int]], counts: dict[str, dict[str, int]]) -> None:
    """Add the counts of some files to an index."""
    for path, words in counts.items():
        for word, count in words.items():
            postings.setdefault(word, {})[path] = count


def rank(postings: dict[str, dict[str, int]], words: list[str]) -> list[tuple[str, int]]:
    """Files that contain every word, by the sum of their hits."""
    found = [postings.get(word.lower(), {}) for word in words]
    common = set.intersection(*map(set, found)) if found else set()
    return sorted(((path, sum(hits[path] for hits in found)) for path in common), key=lambda row: (-row[1], row[0]))


def source_files(limit: int | None) -> list[str]:
    """The source files of the standard library of the running Python."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(str(path) for path in root.rglob("*.py") if "site-packages" not in path.parts)
    return files[:limit]


async def main(files: list[str], words: list[str]) -> list[tuple[str, int]]:
    """Index the files on the cluster and return the ten best for the words."""
    index = Index.remote()
    batches = [files[start : start + BATCH_FILES] for start in range(0, len(files), BATCH_FILES)]
    progress = sys.stderr.isatty()
    async for counts in af.map(index_batch, batches, max_in_flight=8, ordered=False):
        done = await index.add(counts)
        if progress:
            sys.stderr.write(f"\rindexed {done} of {len(files)} files")
    if progress:
        sys.stderr.write("\n")
    return [row async for row in index.search(words, 10)]


def check(files: list[str], words: list[str]) -> list[tuple[str, int]]:
    """The same in this process alone."""
    postings: dict[str, dict[str, int]] = {}
    merge(postings, count_words(files))
    return rank(postings, words)[:10]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Index the standard library's source on a local cluster.")
    parser.add_argument("--files", type=int, default=None, help="index only so many files")
    parser.add_argument("--query", nargs="+", default=["event", "loop", "future"], help="words that must all occur")
    options = parser.parse_args()
    paths = source_files(options.files)

    started = time.perf_counter()
    answer = af.run(lambda: main(paths, options.query))
    cluster_s = time.perf_counter() - started

    started = time.perf_counter()
    expected = check(paths, options.query)
    alone_s = time.perf_counter() - started

    print(f"{len(paths)} files, query {' '.join(options.query)!r}:")
    for path, hits in answer:
        print(f"{hits:6d}  {path}")
    print(f"cluster, its start and end included: {cluster_s:.2f} s; one process: {alone_s:.2f} s")
    if answer != expected:
        sys.exit("the answers differ: this is a bug in actorflow, please report it")
    print("the answers are equal")
