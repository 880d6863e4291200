#!/bin/sh
# Make a virtual environment and install a lock file into it, every package checked against its hash.
#
#   PYTHON3=python3.11 requirements/install.sh .venv requirements/dev.txt
#
# Debian may leave out `ensurepip`, without which a virtual environment has no pip: then Debian's own pip wheel is
# fetched and unpacked, which needs no root. pip installs uv, and uv the rest, in a tenth of the time; where uv cannot
# (an index that only pip is configured for), pip does it.
set -eu

mkdir -p "$1"
venv=$(CDPATH='' cd -- "$1" && pwd)
lock=$2
python3=${PYTHON3:-python3}

"$python3" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Pulsegate needs Python 3.11 or later; name one with PYTHON3=/path/to/python3" >&2
    exit 1
}

download_pip() { # unpack Debian's pip wheel below the folder $1, with package lists of its own: that needs no root
    mkdir -p "$1/state/lists/partial" "$1/cache/archives/partial"
    set -- "$1" -o "Dir::State=$1/state" -o "Dir::Cache=$1/cache"
    (cd "$1" && shift && apt-get -qq "$@" update && apt-get -qq "$@" download python3-pip-whl) >/dev/null
    dpkg-deb -x "$1"/python3-pip-whl_*.deb "$1"
}

find_pip() { # print how to call a pip that can install into the environment
    if "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        echo "-m pip"
        return
    fi
    set -- /usr/share/python-wheels/pip-*.whl
    if [ ! -e "$1" ]; then
        download_pip "$venv/debian" || {
            echo "$python3 has neither pip nor ensurepip: install the package python3-venv" >&2
            exit 1
        }
        set -- "$venv"/debian/usr/share/python-wheels/pip-*.whl
    fi
    echo "$1/pip"
}

if [ ! -x "$venv/bin/python" ]; then
    echo "Making $1"
    "$python3" -m venv --without-pip "$venv"
    if "$python3" -c 'import ensurepip' 2>/dev/null; then
        "$venv/bin/python" -m ensurepip --default-pip >/dev/null
    fi
fi

echo "Installing $lock into $1"
pip=$(find_pip)
# shellcheck disable=SC2086 # `-m pip` is two words
pip_install() { "$venv/bin/python" $pip install --quiet --disable-pip-version-check --require-hashes --requirement "$1"; }

if [ ! -x "$venv/bin/uv" ]; then
    sed -n '/^uv==/,/# via/p' "$(dirname -- "$0")/dev.txt" >"$venv/uv.txt"
    pip_install "$venv/uv.txt"
fi
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --require-hashes --requirement "$lock" || {
    echo "uv could not; trying pip instead, which takes a few minutes" >&2
    pip_install "$lock"
}
