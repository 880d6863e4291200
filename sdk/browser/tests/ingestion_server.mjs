// An ingestion endpoint that keeps the contract of http-api.md as far as clients see it: it counts each producer's
// sequence once, and answers by a script where there is one. Types go by name: …_total is a counter, …_seconds a
// histogram, all else a gauge. Started by itself it is driven over HTTP by the browser tests.
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const CORS = { "Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After" };

export class IngestionServer {
  /** Every request as it came: {method, key, contentType, at, body, duplicate}. */
  requests = [];
  /** Contract violations seen. */
  violations = [];
  /** Series as `name{labels}` → total of a counter, {count, sum} of a histogram, level of a gauge. */
  totals = {};
  /** The next answers: {status, headers, body, apply: count the batch all the same, cut: drop the connection}. */
  script = [];
  /** Answers for whatever `matches` the body: {matches, status, …}, for ever. */
  rules = [];
  /** Is answered with 401. */
  refusedKey;
  #seen = new Set();
  #timestamps = new Map();
  #server;
  // Of its own, so that nobody else has its port there while it is down.
  #address = `127.${Array.from({ length: 3 }, () => randomInt(1, 255)).join(".")}`;
  #port = 0;

  get url() {
    return `http://${this.#address}:${this.#port}`;
  }

  get batches() {
    return this.requests.filter(({ method }) => method === "POST").map(({ body }) => JSON.parse(body));
  }

  async up() {
    this.#server = createServer((request, response) => void this.#serve(request, response));
    this.#server.listen(this.#port, this.#address);
    await once(this.#server, "listening");
    this.#port = this.#server.address().port;
    return this;
  }

  async down() {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  async #serve(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString();
    const url = new URL(request.url, this.url);
    const seen = { method: request.method, key: url.searchParams.get("key"), body, at: performance.now() };
    this.requests.push({ ...seen, contentType: request.headers["content-type"], path: url.pathname });
    if (request.method !== "POST") return void response.writeHead(405, CORS).end();
    if (seen.key === this.refusedKey) return void response.writeHead(401, CORS).end("{}");
    const rule = this.rules.find(({ matches }) => body.includes(matches)) ?? this.script.shift() ?? { apply: true };
    const answer = rule.apply ? this.#apply(JSON.parse(body)) : {};
    if (rule.cut) return void request.socket.destroy();
    response.writeHead(rule.status ?? 202, { ...CORS, "Content-Type": "application/json", ...rule.headers });
    response.end(JSON.stringify(rule.body ?? answer));
  }

  #apply({ producer, sequence, floor, metrics }) {
    if (!UUID.test(producer)) this.violations.push(`producer ${producer}`);
    if (!(floor >= 1 && floor <= sequence && sequence - floor < 4096)) this.violations.push(`${floor}..${sequence}`);
    if (!(metrics.length >= 1 && metrics.length <= 100)) this.violations.push(`${metrics.length} metrics`);
    const answer = { accepted: metrics.length, rejected: [] };
    const id = `${producer}/${sequence}`;
    if (this.#seen.has(id)) return { ...answer, duplicate: true };
    this.#seen.add(id);
    for (const metric of metrics) this.#count(metric);
    return answer;
  }

  #count({ name, value, labels = {}, timestamp }) {
    const series = `${name}${JSON.stringify(labels)}`;
    if (name.endsWith("_total")) {
      if (!(value >= 0)) this.violations.push(`${series} ${value}`);
      this.totals[series] = (this.totals[series] ?? 0) + value;
    } else if (name.endsWith("_seconds")) {
      const observations = [value].flat();
      if (observations.length > 1000) this.violations.push(`${observations.length} observations`);
      const { count, sum } = this.totals[series] ?? { count: 0, sum: 0 };
      const added = observations.reduce((total, observation) => total + observation, 0);
      this.totals[series] = { count: count + observations.length, sum: sum + added };
    } else if (!(timestamp < this.#timestamps.get(series))) {
      this.#timestamps.set(series, timestamp);
      this.totals[series] = value;
    }
  }
}

/** POST {up, down, script, rules} in, the server's state out. */
async function serveControl(ingestion) {
  const control = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const command = JSON.parse(Buffer.concat(chunks).toString());
    if (command.down) await ingestion.down();
    if (command.up) await ingestion.up();
    if (command.script) ingestion.script = command.script;
    if (command.rules) ingestion.rules = command.rules;
    const { requests, violations, totals } = ingestion;
    response.end(JSON.stringify({ requests, violations, totals }));
  });
  control.listen(0, "127.0.0.1");
  await once(control, "listening");
  return control.address().port;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const ingestion = await new IngestionServer().up();
  console.log(JSON.stringify({ url: ingestion.url, control: await serveControl(ingestion) }));
  // The tests hold standard input open: without them there is nothing to serve.
  process.stdin.on("end", () => process.exit()).resume();
}
