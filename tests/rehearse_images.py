"""Carries out the Dockerfile for every service and starts what it makes: `python -m tests.rehearse_images`.

Each image's process must start from the image's files alone and ask for its settings (exit status 78); all layers
together must stay under 150 MB, as registries keep and send them.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.dockerfile import SERVICES, RehearsalFailed, Stage, rehearse

#: python:3.11-slim-bookworm as its registry lists it, compressed, rounded up.
_BASE_MEGABYTES = 50
_MOST_MEGABYTES = 150
_EXIT_CONFIGURATION = 78


def main() -> None:
    stages: dict[str, Stage] = {}
    packages = 0.0
    with tempfile.TemporaryDirectory(prefix="pulsegate-images-") as folder:
        for service in SERVICES:
            stages = rehearse(service, Path(folder) / service, stages)
            _require_that_it_starts(service, stages["image"], _base_image(Path(folder)))
            app = stages["image"].folder / "app"
            packages = packages or _compressed([app / "packages"], Path(folder))  # the same layer in each
            project = _compressed([path for path in app.iterdir() if path.name != "packages"], Path(folder))
            total = _BASE_MEGABYTES + packages + project
            print(f"pulsegate-{service}: base {_BASE_MEGABYTES} + {packages:.1f} + {project:.1f} = {total:.1f} MB")
            if total > _MOST_MEGABYTES:
                raise RehearsalFailed(f"pulsegate-{service} has {total:.1f} MB, more than {_MOST_MEGABYTES}")


def _base_image(folder: Path) -> Path:
    """A folder with the `python` of the base image: without what this checkout's environment has installed."""
    programs = folder / "base"
    programs.mkdir(exist_ok=True)
    python = programs / "python"
    if not python.exists():
        python.symlink_to(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
    return programs


def _require_that_it_starts(service: str, image: Stage, programs: Path) -> None:
    role = ["aggregator"] if service == "ingest" else []
    environment = {name: image.here(value) for name, value in image.environment.items()}
    ended = subprocess.run(
        [str(image.folder / "app" / "start"), *role],
        cwd=image.folder / "app",
        env={**environment, "PATH": f"{programs}:/usr/bin:/bin", "PYTHONNOUSERSITE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    required = "PULSEGATE_CANARY_KEY" if service == "canary" else "PULSEGATE_SERVICE_TOKEN"
    if ended.returncode != _EXIT_CONFIGURATION or required not in ended.stderr:
        raise RehearsalFailed(f"pulsegate-{service} ended with status {ended.returncode}:\n{ended.stderr}")


def _compressed(paths: list[Path], folder: Path) -> float:
    """The size of a layer with these files, in MB."""
    archive = folder / "layer.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=6) as layer:
        for path in paths:
            layer.add(path, arcname=path.name)
    return archive.stat().st_size / 1e6


main()
