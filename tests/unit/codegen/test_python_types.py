"""Generated Python under `mypy --strict`: it passes, right calls pass, and each wrong call is an error."""

import re
import subprocess
import sys
from pathlib import Path

from services.codegen.domain import Label, Language
from tests.unit.codegen.samples import generate, metric, real_runtime

_METRICS = (
    metric(
        "checkout_completed_total",
        "counter",
        Label(name="plan", required=True, values=("free", 'it\'s "pro"\n')),
        Label(name="region", values=("eu", "us")),
        Label(name="class"),
    ),
    metric("queue_depth", "gauge"),
    metric("page_load_seconds", "histogram", unit="seconds"),
    metric("job_seconds", "summary", Label(name="job", required=True), unit="seconds"),
    *(
        metric(name)
        for name in ("str", "float", "Optional", "Literal", "Sequence", "Union", "record", "Callable", "int")
    ),
)

#: A comment says what mypy must find wrong with its line; other lines must be right.
_USE = """
from typing import Optional
from pulsegate_metrics import Client, Metrics, Stats

metrics = Metrics(queue_directory="/tmp", on_drop=print)
client: Client = metrics
stats: Stats = metrics.stats
region: Optional[str] = None

metrics.checkout_completed_total(plan="free")
metrics.checkout_completed_total(2.5, plan="it's \\"pro\\"\\n", region="eu", class_=region)
metrics.queue_depth(5)
metrics.queue_depth(5, timestamp=1.5)
metrics.page_load_seconds(0.5)
metrics.page_load_seconds([0.5, 1])
metrics.job_seconds((1, 2), job="nightly")
metrics.str_()

metrics.checkout_completed_total()  # call-arg
metrics.checkout_completed_total(plan="gold")  # arg-type
metrics.checkout_completed_total(plan=None)  # arg-type
metrics.checkout_completed_total(plan="free", region="mars")  # arg-type
metrics.checkout_completed_total(plan="free", color="red")  # call-arg
metrics.checkout_completed_total(1, "free")  # call-arg
metrics.checkout_completed_total([1], plan="free")  # arg-type
metrics.checkout_completed_total(1, plan="free", timestamp=1)  # call-arg
metrics.queue_depth()  # call-arg
metrics.queue_depth("5")  # arg-type
metrics.page_load_seconds("5")  # arg-type
metrics.job_seconds(1)  # call-arg
metrics.job_seconds(1, job=5)  # arg-type
metrics.nothing_total()  # attr-defined
Metrics(que_directory="/tmp")  # call-arg
Metrics(timeout_seconds="1")  # arg-type
"""


def test_right_calls_pass_and_wrong_ones_are_errors(tmp_path: Path) -> None:
    source = generate(*_METRICS, runtime=real_runtime(Language.PYTHON))
    (tmp_path / "pulsegate_metrics.py").write_text(source, encoding="utf-8")
    (tmp_path / "use.py").write_text(_USE)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", "--no-pretty"]
    checked = subprocess.run(
        [*command, "--cache-dir=cache", "pulsegate_metrics.py", "use.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    found: dict[int, set[str]] = {}
    for path, line, code in re.findall(r"^(\S+?):(\d+): error: .*\[([a-z-]+)\]$", checked.stdout, re.MULTILINE):
        assert path == "use.py", checked.stdout
        found.setdefault(int(line), set()).add(code)
    expected = {
        number: set(line.partition("# ")[2].split())
        for number, line in enumerate(_USE.splitlines(), start=1)
        if "# " in line
    }
    assert found == expected, checked.stdout + checked.stderr
