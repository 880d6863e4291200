"""JavaScript, executed by one Node process that answers a line of JSON for each line of JSON."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.unit.codegen.samples import CHECKOUT

#: Runs each line's `code` in a context of its own; answers the value of its `result` expression, or the error.
_SERVER = """
const vm = require("node:vm");
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { code, result } = JSON.parse(line);
  const context = vm.createContext({ TextEncoder, URL, setTimeout, clearTimeout, AbortController, Event, fetch });
  let answer;
  try {
    vm.runInContext(code, context);
    answer = { value: JSON.parse(vm.runInContext(`JSON.stringify(${result})`, context) ?? "null") };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\\n");
});
"""


def executable() -> str:
    """Node from PATH, or from the virtual environment."""
    own = CHECKOUT / ".venv/bin/node"
    found = shutil.which("node") or (str(own) if own.exists() else None)
    assert found, "there is no node: install Node 18 or later, or run make build"
    return found


class Node:
    """See `running`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, code: str, result: str) -> Any:
        """Runs a script in a fresh global scope, then gives the value of an expression there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"code": code, "result": result}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["value"]


@contextmanager
def running() -> Iterator[Node]:
    """A Node process, ended with the block."""
    with subprocess.Popen(
        [executable(), "-e", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        try:
            yield Node(process)
        finally:
            process.terminate()
