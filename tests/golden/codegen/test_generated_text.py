"""The text of generated clients, to be read and reviewed. The runtimes in them are those of the samples, a few lines.

Where a change of the text is meant, copy what the failing test has written over the golden file, and read the diff.
"""

from pathlib import Path

import pytest

from services.codegen.domain import Label, Language, Packaging
from tests.unit.codegen.samples import generate, metric

_GOLDEN = Path(__file__).parent

_METRICS = (
    metric(
        "checkout_completed_total",
        "counter",
        Label(name="plan", required=True, values=("free", "pro")),
        Label(name="region", pattern="[a-z]{2}(-[a-z]+)?"),
        help="Checkouts that were paid for.",
    ),
    metric("queue_depth", "gauge", help='Jobs that wait in "the queue" */ and """ are \\ text.'),
    metric("page_load_seconds", "histogram", Label(name="class"), unit="seconds", help="Time to the load event."),
)

_FILES = {
    "pulsegate_metrics.py.txt": generate(*_METRICS),
    "pulsegate-metrics.mjs.txt": generate(*_METRICS, language=Language.JAVASCRIPT, key=""),
    "pulsegate-metrics.min.js.txt": generate(
        *_METRICS, language=Language.JAVASCRIPT, minify=True, packaging=Packaging.SCRIPT
    ),
}


@pytest.mark.parametrize("name", _FILES)
def test_a_client_reads_as_reviewed(name: str, tmp_path: Path) -> None:
    written = tmp_path / name
    written.write_text(_FILES[name], encoding="utf-8")
    golden = _GOLDEN / name
    reviewed = golden.read_text(encoding="utf-8") if golden.exists() else ""
    assert written.read_text(encoding="utf-8") == reviewed, f"cp {written} {golden}"
