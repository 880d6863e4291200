#!/bin/sh
# Make a virtual environment and install a lock file into it, every package checked against its hash.
#
#   PYTHON3=python3.11 requirements/install.sh .venv requirements/dev.txt
#
# Debian may leave out `ensurepip`, without which a virtual environment has no pip: then Debian's own pip wheel is
# fetched and unpacked, which needs no root, and that pip installs into the environment.
set -eu

venv=$1
lock=$2
python3=${PYTHON3:-python3}

"$python3" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Pulsegate needs Python 3.11 or later; name one with PYTHON3=/path/to/python3" >&2
    exit 1
}

pip_wheel() { # prints the path of a pip wheel
    set -- /usr/share/python-wheels/pip-*.whl
    [ -e "$1" ] || {
        mkdir -p "$venv/debian"
        (cd "$venv/debian" && apt-get download python3-pip-whl >/dev/null && dpkg-deb -x python3-pip-whl*.deb .) || {
            echo "This Python has neither pip nor ensurepip; install python3-venv" >&2
            exit 1
        }
        set -- "$venv"/debian/usr/share/python-wheels/pip-*.whl
    }
    echo "$1"
}

if [ ! -x "$venv/bin/python" ]; then
    if "$python3" -c 'import ensurepip' 2>/dev/null; then
        "$python3" -m venv "$venv"
    else
        "$python3" -m venv --without-pip "$venv"
    fi
fi
if "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    pip="-m pip"
else
    pip=$(pip_wheel)/pip
fi
# shellcheck disable=SC2086 # `-m pip` is two words
"$venv/bin/python" $pip install --quiet --disable-pip-version-check --require-hashes --requirement "$lock"
