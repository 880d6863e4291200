#!/bin/sh
# Check the contracts: lint, no breaking change against the frozen image, contracts/ is what proto/ generates.
set -eu

cd "$(dirname -- "$0")/.."
buf=$(dirname -- "$PYTHON")/buf

"$buf" lint proto
"$buf" breaking proto --against proto/image.json

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
PYTHON=$PYTHON proto/generate.sh "$fresh"
diff -rq --exclude=__pycache__ "$fresh/pulsegate" contracts/pulsegate || {
    echo "contracts/ is not what proto/ generates: run make proto" >&2
    exit 1
}
echo "proto/ breaks no caller, and contracts/ is what it generates"
