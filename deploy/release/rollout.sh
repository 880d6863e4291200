#!/bin/sh
# Bring one version into an installation, try it, and go back to the one before where the try fails.
#
#   rollout.sh NAMESPACE URL CHART VALUES…    PULSEGATE_SMOKE_KEY is the key of the try (docs/release.md)
#
# Ends 0 when the new version runs and counts exactly, 1 when the old one runs again, 2 when not even that is sure.
set -eu

namespace=$1 url=$2 chart=$3
shift 3
for values in "$@"; do
    set -- "$@" --values "$values"
    shift
done
here=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
try() { (cd "$here" && python3 -m deploy.release smoke "$url"); }

# What cannot start goes back by itself; migrations only add, so the old version can work with the new schema.
if ! helm upgrade pulsegate "$chart" --install --namespace "$namespace" "$@" --atomic --wait --timeout 15m; then
    echo "Helm could not bring the new version; is the one before right?" >&2
    echo "Migrations that miss a role need deploy/postgres/bootstrap.sql of the new version, run by a superuser." >&2
    try || exit 2
    exit 1
fi
if try; then
    exit 0
fi
echo "The new version does not count exactly: back to the one before" >&2
helm rollback pulsegate --namespace "$namespace" --wait --timeout 15m || exit 2
try || exit 2
exit 1
