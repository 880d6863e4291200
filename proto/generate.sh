#!/bin/sh
# Generate the Python of every contract in proto/ into a folder.
#
#   PYTHON=.venv/bin/python proto/generate.sh contracts
#
# protoc names modules after the files' paths (`pulsegate.auth.v1.auth_pb2`), the project imports them below
# `contracts.`, and protoc has no option for that. So the generated imports are rewritten, and nothing else.
set -eu

output=$1
protos=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
python=${PYTHON:-python3}
case $python in */*) PATH=$(CDPATH='' cd -- "$(dirname -- "$python")" && pwd):$PATH ;; esac # where the plugins are

rm -rf "$output/pulsegate"
mkdir -p "$output"
(cd "$protos" && find pulsegate -name '*.proto' | LC_ALL=C sort) |
    xargs "$python" -m grpc_tools.protoc --proto_path="$protos" \
        --python_out="$output" --grpc_python_out="$output" --mypy_out="quiet:$output" --mypy_grpc_out="quiet:$output"

find "$output/pulsegate" -type d -exec touch '{}/__init__.py' ';'
find "$output/pulsegate" -name '*_pb2*.py*' -exec sed -i.orig -E \
    -e 's/^from pulsegate([. ])/from contracts.pulsegate\1/' \
    -e 's/^import pulsegate([. ])/import contracts.pulsegate\1/' '{}' ';'
find "$output/pulsegate" -name '*.orig' -delete
