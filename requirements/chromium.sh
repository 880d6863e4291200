#!/bin/sh
# See that there is a Chromium for the tests that drive a browser: CHROMIUM_BIN, one on PATH, or, as root, Debian's.
set -eu

from_debian() {
    echo "Installing Chromium"
    apt-get -qq update &&
        DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends chromium >/dev/null
}

if command -v "${CHROMIUM_BIN:-chromium}" >/dev/null; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && from_debian; then
    exit 0
fi
echo "The tests need Chromium: install it (Debian: apt-get install chromium) or name it with CHROMIUM_BIN" >&2
exit 1
