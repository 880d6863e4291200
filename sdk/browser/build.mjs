// Makes dist/: the runtime as plain statements that declare one binding, PulsegateRuntime, and its typings.
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
const dist = join(here, "dist");

// Members that only the runtime's own objects have: their names are shortened in the minified bundle.
const INTERNAL_MEMBERS = [
  ...["producer", "sequence", "sealedAt", "records", "recordsByMetric", "inFlight", "attempts", "settled", "stored"],
  ...["payload", "timestamp", "metricCount", "batches", "enqueue", "settle", "drop", "adopt", "take", "release"],
  ...["handOver", "pumpSoon", "hurry", "sendBeforeHidden"],
  ...["failures", "refused", "stop", "counts", "guard", "later", "warnOnce", "seal", "head", "kind", "values", "characters"],
];

async function bundle(minify) {
  await build({
    absWorkingDir: here,
    entryPoints: ["src/runtime.ts"],
    outfile: join(dist, minify ? "runtime.min.js" : "runtime.js"),
    bundle: true,
    minify,
    ...(minify && { mangleProps: new RegExp(`^(${INTERNAL_MEMBERS.join("|")})$`) }),
    format: "iife",
    // No word for what the type checker has seen to: each byte is loaded by every page.
    tsconfigRaw: { compilerOptions: { target: "ES2022", alwaysStrict: false } },
    banner: { js: "var PulsegateRuntime;" },
    target: "es2022",
    charset: "ascii",
    legalComments: "none",
  });
}

function declareTypes() {
  const declarations = mkdtempSync(join(tmpdir(), "pulsegate-types-"));
  const compiler = join(here, "node_modules", "typescript", "bin", "tsc");
  execFileSync(process.execPath, [compiler, "--emitDeclarationOnly", "--outDir", declarations], {
    cwd: here,
    stdio: "inherit",
  });
  copyFileSync(join(declarations, "client.d.ts"), join(dist, "client.d.ts"));
  rmSync(declarations, { recursive: true });
}

rmSync(dist, { recursive: true, force: true });
mkdirSync(dist);
await bundle(false);
await bundle(true);
declareTypes();
