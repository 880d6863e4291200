"""Writes what the chart makes of each values file into a folder, for scanners: `python -m tests.write_chart FOLDER`."""

import sys
from pathlib import Path

import yaml

from tests.chart_rendering import CASES, case


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in CASES:
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(case(name).all, sort_keys=False))


main(Path(sys.argv[1]))
