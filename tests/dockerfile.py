"""The Dockerfile, carried out without an engine: every RUN and COPY, each stage in a clean folder of its own.

There is no other root here, so the folders that the Dockerfile works in (`/build`, `/app`, `/usr/local`) are put below
the stage's folder wherever they are named; `python` is this checkout's, which is of the base image's version. Of a base
image there is what installs packages, as empty files.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dockerfile_parse.parser import DockerfileParser

from deploy.local.layout import CHECKOUT

DOCKERFILE = CHECKOUT / "deploy" / "docker" / "Dockerfile"
SERVICES = ("gateway", "auth", "config", "codegen", "ingest", "canary")

_PLACES = re.compile(r"(?<![\w./-])/(build|app|usr/local)(?=[/\s'\":;]|$)")
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::\?[^}]*)?\}|(\w+))")
#: Below /usr/local, in the images of Python.
_INSTALLERS = (
    "bin/pip",
    "bin/pip3",
    "bin/wheel",
    "lib/python{version}/ensurepip/_bundled/setuptools-65.5.0-py3-none-any.whl",
    "lib/python{version}/site-packages/pip/__init__.py",
    "lib/python{version}/site-packages/setuptools/_vendor/wheel-0.45.1.dist-info/METADATA",
    "lib/python{version}/site-packages/wheel-0.45.1.dist-info/METADATA",
)


class RehearsalFailed(Exception):
    """An instruction cannot be carried out; the message says which and why."""


@dataclass
class Stage:
    """What an image has at the end of a stage."""

    base: str
    folder: Path
    workdir: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    user: str = "0"
    entrypoint: str = ""

    @property
    def installed(self) -> Path:
        return self.folder / "usr" / "local"

    def here(self, text: str) -> str:
        """The text with the stage's places as folders of this machine."""
        return _PLACES.sub(lambda found: str(self.folder / found[1]), text)

    def path(self, inside: str) -> Path:
        return self.folder / os.path.normpath(os.path.join(self.workdir, inside)).lstrip("/")  # noqa: PTH118 - not of here

    def filled(self, text: str) -> str:
        """With ARG and ENV for the variables that they name."""
        known = {**self.arguments, **self.environment}
        return _VARIABLE.sub(lambda found: known.get(found[1] or found[2], found[0]), text)


def rehearse(arguments: Mapping[str, str], folder: Path, kept: Mapping[str, Stage] | None = None) -> dict[str, Stage]:
    """Builds the image of these build arguments below `folder`; its stages by name, the last one as `image`.

    Stages in `kept` that name no build argument are taken from there. Raises RehearsalFailed.
    """
    stages: dict[str, Stage] = {}
    for name, instructions in _stages():
        if kept and name in kept and not any(kind == "ARG" for kind, _ in instructions):
            stages[name] = kept[name]
            continue
        stages[name] = stage = Stage(base=instructions[0][1], folder=folder / name)
        stage.folder.mkdir(parents=True)
        _lay_installers(stage)
        for kind, value in instructions[1:]:
            _carry_out(kind, value, stage, stages, arguments)
    return stages


def _stages() -> list[tuple[str, list[tuple[str, str]]]]:
    """name → instructions, FROM with the base first."""
    found: list[tuple[str, list[tuple[str, str]]]] = []
    for each in DockerfileParser(path=str(DOCKERFILE)).structure:
        kind, value = each["instruction"], each["value"]
        if kind == "FROM":
            base, _, name = value.partition(" AS ")
            found.append((name or "image", [(kind, base)]))
        elif kind != "COMMENT":
            found[-1][1].append((kind, value))
    return found


def _lay_installers(stage: Stage) -> None:
    python = re.match(r"python:(\d+\.\d+)-", stage.base)
    if python is None:
        return
    for path in _INSTALLERS:
        file = stage.installed / path.format(version=python[1])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def _carry_out(kind: str, value: str, stage: Stage, stages: Mapping[str, Stage], given: Mapping[str, str]) -> None:
    match kind:
        case "ARG":
            name, _, default = value.partition("=")
            stage.arguments[name] = given.get(name, default)
        case "ENV":
            stage.environment |= _pairs(stage.filled(value))
        case "LABEL":
            stage.labels |= _pairs(stage.filled(value))
        case "WORKDIR":
            stage.workdir = value
            stage.path(".").mkdir(parents=True, exist_ok=True)
        case "COPY":
            _copy(shlex.split(stage.filled(value)), stage, stages)
        case "RUN":
            _run(value, stage)
        case "USER":
            stage.user = value
        case "ENTRYPOINT":
            stage.entrypoint = value
        case "EXPOSE" | "HEALTHCHECK":
            pass
        case _:
            raise RehearsalFailed(f"{kind}: not known here")


def _pairs(text: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(text))


def _copy(words: list[str], stage: Stage, stages: Mapping[str, Stage]) -> None:
    """Docker's rules: the content of a folder, and into a folder where the destination ends in a slash."""
    source_stage = stages[words.pop(0).removeprefix("--from=")] if words[0].startswith("--from=") else None
    *sources, destination = words
    target = stage.path(destination)
    for source in sources:
        origin = source_stage.path(source) if source_stage else CHECKOUT / source
        if not origin.exists():
            raise RehearsalFailed(f"COPY {source}: is not there")
        if origin.is_dir():
            shutil.copytree(origin, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            into = target / origin.name if destination.endswith("/") else target
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(origin, into)


def _run(command: str, stage: Stage) -> None:
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    passed_on = {name: value for name, value in os.environ.items() if name.lower().startswith(("pip_", "npm_", "http"))}
    ended = subprocess.run(
        ["sh", "-e", "-c", stage.here(command)],
        cwd=stage.path("."),
        env={**passed_on, **stage.environment, **stage.arguments, "PATH": programs, "HOME": str(stage.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        raise RehearsalFailed(f"RUN {command}\n{ended.stdout}{ended.stderr}")
