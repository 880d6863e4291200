"""A Prometheus that scrapes a running suite three times a second, with Pulsegate's rules sixty times as fast.

Every duration of the rules (intervals, windows, how long an alert must hold) is divided by `FASTER`, so what takes an
hour takes a minute. Thresholds and expressions are what is shipped. Nothing else about it is made for tests.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.local.layout import RULES
from deploy.local.programs import Program
from deploy.local.secrets import write_private
from deploy.local.servers import HOST, Prometheus

FASTER = 60
_DURATION = re.compile(r"(?<=\[)(\d+)([smhd])(?=\])|(?<=interval: )(\d+)([smhd])|(?<=for: )(\d+)([smhd])")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, kw_only=True)
class FastPrometheus(Prometheus):
    """As the embedded one, but fast."""

    #: where alerts go
    alertmanager_port: int | None = None

    def prepare(self) -> None:
        super().prepare()
        rules = self.folder / "rules"
        rules.mkdir(exist_ok=True)
        for path in RULES.glob("*.yaml"):
            (rules / path.name).write_text(_DURATION.sub(_divided, path.read_text()))
        targets = [f"{HOST}:{self.alertmanager_port}"] if self.alertmanager_port else []
        configuration = {
            "global": {"scrape_interval": "300ms", "scrape_timeout": "300ms", "evaluation_interval": "500ms"},
            "rule_files": [str(rules.resolve() / "*.yaml")],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": targets}]}]},
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [f"{HOST}:{port}"]}]}
                for job, port in self.scraped.items()
            ],
        }
        write_private(Path(self._configuration), json.dumps(configuration))

    def program(self) -> Program:
        program = super().program()
        return replace(program, argv=(*program.argv, "--rules.alert.resend-delay=1s"))


def _divided(found: "re.Match[str]") -> str:
    number, unit = (group for group in found.groups() if group)
    return f"{max(1, int(number) * _UNIT_MS[unit] // FASTER)}ms"
