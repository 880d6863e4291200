"""Headless Chromium as every browser test launches it: `playwright.chromium.launch(**launch_options())`."""

import os
import shutil
from typing import Any

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A name that is not this machine's, so that Chromium takes a plain HTTP page for an insecure one.
    "--host-resolver-rules=MAP plain.test 127.0.0.1",
]


def launch_options() -> dict[str, Any]:
    """For the Chromium that CHROMIUM_BIN names, or the one on PATH. AssertionError where there is none."""
    chromium = os.environ.get("CHROMIUM_BIN") or shutil.which("chromium")
    assert chromium, "browser tests need Chromium: apt-get install chromium, or set CHROMIUM_BIN"
    return {
        "executable_path": chromium,
        "args": _ARGUMENTS,
        "ignore_default_args": ["--disable-back-forward-cache"],
    }
