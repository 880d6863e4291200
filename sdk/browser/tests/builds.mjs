// The runtime as generated clients carry it: the text of dist/ with text before and after.
import { readFileSync } from "node:fs";

const dist = new URL("../dist/", import.meta.url);

export const BUILDS = ["runtime.js", "runtime.min.js"];

const METRICS = `class Metrics extends Client {
  checkoutCompletedTotal(labels, value = 1) { this.record("checkout_completed_total", value, labels, undefined, "counter"); }
  cartItems(value, labels, timestamp) { this.record("cart_items", value, labels, timestamp, "gauge"); }
  pageLoadSeconds(value, labels) { this.record("page_load_seconds", value, labels, undefined, "histogram"); }
}`;

export function runtimeText(build) {
  return readFileSync(new URL(build, dist), "utf8");
}

export function moduleText(build) {
  return `${runtimeText(build)}\nexport const { Client, tolerate } = PulsegateRuntime;\nexport ${METRICS}\n`;
}

export function scriptText(build, { endpoint, key }) {
  const options = JSON.stringify({ endpoint, key });
  return `(() => {\n${runtimeText(build)}\nconst { Client } = PulsegateRuntime;\n${METRICS}
PulsegateRuntime.tolerate();\nglobalThis.Pulsegate = { Client, Metrics };\nglobalThis.pulsegate = new Metrics(${options});\n})();\n`;
}

/** The generated module, loaded by this process. */
export async function loadModule(build) {
  return import(`data:text/javascript;base64,${Buffer.from(moduleText(build)).toString("base64")}`);
}
