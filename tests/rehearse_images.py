"""Carries out the Dockerfile for every service and starts what it makes: `python -m tests.rehearse_images`.

Each image's process must start from the image's files alone and ask for its settings (exit status 78); nothing that
installs packages may be left; its labels must say what it is; all layers together must stay under 150 MB, as registries
keep and send them.
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
#: As a release gives them.
_VERSION, _REVISION = "7.8.9", "0123456789abcdef0123456789abcdef01234567"


def main() -> None:
    stages: dict[str, Stage] = {}
    packages = 0.0
    with tempfile.TemporaryDirectory(prefix="pulsegate-images-") as folder:
        for service in SERVICES:
            arguments = {"SERVICE": service, "VERSION": _VERSION, "REVISION": _REVISION}
            stages = rehearse(arguments, Path(folder) / service, stages)
            _require_its_labels(service, stages["image"])
            _require_no_installer(service, stages["image"])
            _require_that_it_starts(service, stages["image"], _base_image(Path(folder)))
            app = stages["image"].folder / "app"
            packages = packages or _compressed([app / "packages"], Path(folder))  # the same layer in each
            project = _compressed([path for path in app.iterdir() if path.name != "packages"], Path(folder))
            total = _BASE_MEGABYTES + packages + project
            print(f"pulsegate-{service}: base {_BASE_MEGABYTES} + {packages:.1f} + {project:.1f} = {total:.1f} MB")
            if total > _MOST_MEGABYTES:
                raise RehearsalFailed(f"pulsegate-{service} has {total:.1f} MB, more than {_MOST_MEGABYTES}")


def _require_its_labels(service: str, image: Stage) -> None:
    """Those of the OCI image specification by which registries and scanners know an image."""
    wanted = {
        "title": f"pulsegate-{service}",
        "description": f"Pulsegate's service {service}",
        "version": _VERSION,
        "revision": _REVISION,
        "licenses": "Apache-2.0",
    }
    if image.labels != {f"org.opencontainers.image.{name}": text for name, text in wanted.items()}:
        raise RehearsalFailed(f"pulsegate-{service} has the labels {image.labels}")


def _require_no_installer(service: str, image: Stage) -> None:
    """What is known against pip, setuptools or wheel would hold up a release of what does not use them."""
    left = [str(path.relative_to(image.folder)) for path in image.installed.rglob("*") if path.is_file()]
    if left:
        raise RehearsalFailed(f"pulsegate-{service} has {', '.join(left)}")


def _base_image(folder: Path) -> Path:
    """A folder with the `python` of the image: with its own library, and without all that is installed here (`-S`)."""
    programs = folder / "base"
    programs.mkdir(exist_ok=True)
    python = programs / "python"
    if not python.exists():
        interpreter = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
        python.write_text(f'#!/bin/sh\nexec {interpreter} -S "$@"\n')
        python.chmod(0o755)
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
