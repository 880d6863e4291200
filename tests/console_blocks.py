"""What the documents have somebody type."""

import re
import subprocess
from pathlib import Path

_BLOCK = re.compile(r"^( *)```console\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def commands(document: Path, section: str = "") -> list[str]:
    """Those in the console blocks of a document, or of one section of it, without what they print."""
    text = document.read_text()
    if section:
        text = text.split(f"## {section}\n")[1].split("\n## ")[0]
    return [command for indent, block in _BLOCK.findall(text) for command in _typed(indent, block)]


def fault(command: str) -> str:
    """Why a shell does not take it: empty where it does."""
    checked = subprocess.run(["bash", "-n", "-c", command], check=False, capture_output=True, text=True)
    return "it goes on" if command.endswith("\\") else checked.stderr


def _typed(indent: str, block: str) -> list[str]:
    """Commands have a prompt, and go on until a shell takes them; what follows is printed."""
    found: list[str] = []
    for line in block.splitlines():
        written = line.removeprefix(indent)
        if written.startswith("$ "):
            found.append(written[2:])
        elif found and fault(found[-1]):
            found[-1] += f"\n{written}"
    return found
