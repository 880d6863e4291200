import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { it } from "node:test";
import { promisify } from "node:util";
import { runInNewContext } from "node:vm";
import { gzipSync } from "node:zlib";
import { BUILDS, loadModule, moduleText, runtimeText, scriptText } from "./builds.mjs";
import { IngestionServer } from "./ingestion_server.mjs";

const run = promisify(execFile);
const OPTIONS = { endpoint: "https://metrics.example.com", key: "pk_0123456789abcdef0123456789abcdef" };

it("is under 4 KB gzipped, with a generated client of three metrics around it", () => {
  const bytes = gzipSync(scriptText("runtime.min.js", OPTIONS), { level: 9 }).length;
  assert.ok(bytes < 4096, `${bytes} bytes`);
});

for (const build of BUILDS) {
  it(`${build} is plain ASCII that declares nothing but PulsegateRuntime`, () => {
    assert.match(runtimeText(build), /^[\t\n\x20-\x7e]*$/);
    const scope = runInNewContext(`${runtimeText(build)};globalThis`, { TypeError });
    assert.deepEqual(Object.keys(scope).sort(), ["PulsegateRuntime", "TypeError"]);
    assert.deepEqual(Object.keys(scope.PulsegateRuntime), ["Client", "tolerate"]);
  });

  it(`${build} can be put in a module and in a script`, async () => {
    assert.deepEqual(Object.keys(await loadModule(build)), ["Client", "Metrics", "tolerate"]);
    const sandbox = { setTimeout, clearTimeout, AbortController, performance };
    const scope = runInNewContext(`${scriptText(build, OPTIONS)};globalThis`, sandbox);
    assert.ok(scope.pulsegate instanceof scope.Pulsegate.Metrics);
    assert.ok(scope.pulsegate instanceof scope.Pulsegate.Client);
    assert.equal(scope.PulsegateRuntime, undefined);
  });
}

it("has typings that stand alone", () => {
  const typings = readFileSync(new URL("../dist/client.d.ts", import.meta.url), "utf8");
  assert.match(typings, /export declare class Client/);
  assert.doesNotMatch(typings, /import|recorder/);
});

it("lets a Node process that closes deliver all, and one that does not close end at once", async () => {
  const server = await new IngestionServer().up();
  server.script = [{ status: 503 }, { apply: true, cut: true }];
  const program = (last) => `${moduleText("runtime.js")}
const client = new Metrics({ endpoint: "${server.url}", key: "pk", retryDelayMs: 20 });
for (let i = 0; i < 1000; i++) client.checkoutCompletedTotal({ plan: "pro" });
${last}`;
  const node = (source) => run(process.execPath, ["--input-type=module", "--eval", source], { timeout: 20_000 });
  await node(program("await client.close();"));
  assert.deepEqual(server.totals, { 'checkout_completed_total{"plan":"pro"}': 1000 });
  const start = performance.now();
  await node(program(""));
  assert.ok(performance.now() - start < 5000);
  await server.down();
});
