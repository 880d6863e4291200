"""Generated JavaScript under TypeScript's checkJs: right calls pass, and each wrong call is an error."""

import json
import random
import subprocess
from pathlib import Path

from services.codegen.domain import Label, Language, Metric
from tests.unit.codegen.node import executable
from tests.unit.codegen.samples import CHECKOUT, HOSTILE, generate, metric, real_runtime

_TYPESCRIPT = CHECKOUT / "sdk/browser/node_modules/typescript/bin/tsc"

_METRICS = (
    metric(
        "checkout_completed_total",
        "counter",
        Label(name="plan", required=True, values=("free", 'it\'s "pro" */ </script>\n')),
        Label(name="region", values=("eu", "us")),
        Label(name="class"),
    ),
    metric("page_views_total"),
    metric("queue_depth", "gauge", Label(name="region")),
    metric("page_load_seconds", "histogram", unit="seconds"),
    metric("job_seconds", "summary", Label(name="job", required=True), unit="seconds"),
)

#: TypeScript complains of a `@ts-expect-error` whose line is right.
_USE = """
import { Client, Metrics } from "./pulsegate-metrics.mjs";

const metrics = new Metrics({ storage: null, onDrop: (reason, records) => void [reason, records] });
/** @type {number} */
export const accepted = metrics.stats.accepted;
/** @type {Promise<boolean>} */
export const settled = metrics.flush(1000);
export const client = new Client({ endpoint: "https://example.com", key: "pk_x" });
/** @type {string | undefined} */
const unknown = accepted > 5 ? "x" : undefined;

metrics.checkoutCompletedTotal({ plan: "free" });
metrics.checkoutCompletedTotal({ plan: "it's \\"pro\\" */ <\\/script>\\n", region: "eu", class: unknown }, 2.5);
metrics.pageViewsTotal();
metrics.pageViewsTotal(2);
metrics.pageViewsTotal({}, 2);
metrics.queueDepth(5);
metrics.queueDepth(5, Date.now());
metrics.queueDepth({ region: "eu" }, 5, Date.now());
metrics.pageLoadSeconds(0.5);
metrics.pageLoadSeconds([0.5, 1]);
metrics.jobSeconds({ job: "nightly" }, [1, 2]);

// @ts-expect-error
metrics.checkoutCompletedTotal();
// @ts-expect-error
metrics.checkoutCompletedTotal(1);
// @ts-expect-error
metrics.checkoutCompletedTotal({});
// @ts-expect-error
metrics.checkoutCompletedTotal({ plan: "gold" });
// @ts-expect-error
metrics.checkoutCompletedTotal({ plan: "free", region: "mars" });
// @ts-expect-error
metrics.checkoutCompletedTotal({ plan: "free", color: "red" });
// @ts-expect-error
metrics.checkoutCompletedTotal({ plan: "free" }, "1");
// @ts-expect-error
metrics.checkoutCompletedTotal({ plan: "free" }, [1]);
// @ts-expect-error
metrics.checkoutCompletedTotal({ plan: "free" }, 1, Date.now());
// @ts-expect-error
metrics.pageViewsTotal({ page: "home" });
// @ts-expect-error
metrics.queueDepth();
// @ts-expect-error
metrics.queueDepth({ region: "eu" });
// @ts-expect-error
metrics.queueDepth({ region: 5 }, 5);
// @ts-expect-error
metrics.jobSeconds(1);
// @ts-expect-error
metrics.nothingTotal();
// @ts-expect-error
new Metrics({ flushInterval: 500 });
// @ts-expect-error
new Client({ endpoint: "https://example.com" });
"""

#: The types that a generated client states are those of the runtime, no more and no less.
_SAME = """
import { Client } from "./pulsegate-metrics.mjs";
import type * as runtime from "./client";

type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false;
type Own = InstanceType<typeof Client>;
export const same: [
  Same<ConstructorParameters<typeof Client>[0], runtime.Options>,
  Same<keyof ConstructorParameters<typeof Client>[0], keyof runtime.Options>,
  Same<keyof Own, keyof runtime.Client>,
  Same<Own["stats"], runtime.Client["stats"]>,
  Same<keyof Own["stats"], keyof runtime.Client["stats"]>,
  Same<Parameters<Own["record"]>, Parameters<runtime.Client["record"]>>,
  Same<Own["flush"], runtime.Client["flush"]>,
  Same<Own["close"], runtime.Client["close"]>,
] = [true, true, true, true, true, true, true, true];
"""


def _check(folder: Path, *metrics: Metric, key: str = "pk_x", **files: str) -> str:
    """What TypeScript says of the files beside a client; empty where all is well."""
    assert _TYPESCRIPT.exists(), f"{_TYPESCRIPT} is missing: run make build"
    runtime = real_runtime(Language.JAVASCRIPT)
    client = generate(*metrics, language=Language.JAVASCRIPT, runtime=runtime, key=key)
    (folder / "pulsegate-metrics.mjs").write_text(client, encoding="utf-8")
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    options = {"allowJs": True, "checkJs": True, "strict": True, "noEmit": True, "types": [], "skipLibCheck": True}
    options |= {"target": "es2022", "module": "esnext", "moduleResolution": "bundler", "lib": ["es2022", "dom"]}
    project = {"compilerOptions": options, "files": [name.replace("_", ".") for name in files]}
    (folder / "tsconfig.json").write_text(json.dumps(project))
    command = [executable(), str(_TYPESCRIPT), "-p", str(folder), "--pretty", "false"]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False).stdout


def test_right_calls_pass_and_wrong_ones_are_errors(tmp_path: Path) -> None:
    assert _check(tmp_path, *_METRICS, use_mjs=_USE) == ""


def test_the_stated_types_are_those_of_the_runtime(tmp_path: Path) -> None:
    declarations = (CHECKOUT / "sdk/browser/dist/client.d.ts").read_text(encoding="utf-8")
    (tmp_path / "client.d.ts").write_text(declarations)
    assert _check(tmp_path, same_mts=_SAME) == ""


def test_without_an_embedded_key_one_must_be_given(tmp_path: Path) -> None:
    use = (
        'import { Metrics } from "./pulsegate-metrics.mjs";\nnew Metrics({ key: "pk_x" });\n'
        "// @ts-expect-error\nnew Metrics();\n"
    )
    assert _check(tmp_path, key="", use_mjs=use) == ""


def test_no_help_changes_the_types(tmp_path: Path) -> None:
    """Whatever the help says, the method takes what its definition says: TypeScript reads comments."""
    chosen = random.Random(5)
    helps = [*HOSTILE, *("".join(chosen.sample(HOSTILE, 5)) for _ in range(100))]
    plan = Label(name="plan", required=True, values=("free", *HOSTILE))
    metrics = [metric(f"m{number}", "counter", plan, help=text, unit=text) for number, text in enumerate(helps)]
    use = 'import { Metrics } from "./pulsegate-metrics.mjs";\nconst metrics = new Metrics();\n' + "".join(
        f'metrics.m{number}({{ plan: "free" }}, 2);\n'
        f'// @ts-expect-error\nmetrics.m{number}({{ plan: "gold" }});\n'
        f'// @ts-expect-error\nmetrics.m{number}({{ plan: "free" }}, "2");\n'
        for number in range(len(helps))
    )
    assert _check(tmp_path, *metrics, use_mjs=use) == ""
