#!/bin/sh
# Unpack Debian's redis-server into DIRECTORY, for the tests of a head whose journal is in a Redis: nothing is installed and no service
# starts. Where the system has a redis-server, or no apt-get, nothing is done, and without either those tests are skipped.
#
#     tests/get_redis.sh DIRECTORY
set -eu
directory=$(cd "$1" && pwd)
if command -v redis-server >/dev/null || ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    exit 0
fi
fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
cd "$fetched"
fetch() { apt-get download -qq redis-server redis-tools libjemalloc2 liblzf1 >/dev/null 2>&1; }
if ! fetch && ! { apt-get update -qq >/dev/null 2>&1 && fetch; }; then
    exit 0
fi
for package in ./*.deb; do
    dpkg -x "$package" "$directory"
done
