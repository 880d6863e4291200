import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { BUILDS, loadModule } from "./builds.mjs";
import { IngestionServer } from "./ingestion_server.mjs";
import { MemoryStorage } from "./memory_storage.mjs";
import { storageFaults } from "./storage_contract.mjs";

const KEY = "pk_0123";

async function eventually(condition, what) {
  const deadline = performance.now() + 5000;
  while (!condition()) {
    assert.ok(performance.now() < deadline, `not within 5 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

it("has a memory storage that behaves as a browser's", () => {
  assert.deepEqual(storageFaults(new MemoryStorage(1000), 2000), []);
});

for (const build of BUILDS) {
  describe(build, async () => {
    const { Metrics, tolerate } = await loadModule(build);
    let server;
    let clients;

    const newClient = (options = {}) => {
      const client = new Metrics({ endpoint: server.url, key: KEY, flushIntervalMs: 10, retryDelayMs: 5, ...options });
      clients.push(client);
      return client;
    };
    const metricsSent = () => server.batches.flatMap(({ metrics }) => metrics);

    beforeEach(async () => {
      server = await new IngestionServer().up();
      clients = [];
    });

    afterEach(async () => {
      await Promise.all(clients.map((client) => client.close(0)));
      await server.down();
      assert.deepEqual(server.violations, []);
      for (const { stats } of clients) assert.equal(stats.faults, 0);
    });

    it("sends a simple request with the key in the address", async () => {
      const client = newClient({ endpoint: `${server.url}/`, key: "pk_a b&c" });
      client.checkoutCompletedTotal({ plan: "pro" });
      assert.equal(await client.flush(), true);
      const [{ method, path, key, contentType }] = server.requests;
      assert.deepEqual([method, path, key], ["POST", "/api/v1/metrics", "pk_a b&c"]);
      assert.match(contentType, /^text\/plain/);
    });

    it("adds up the increments of one series, whatever the order of its labels", async () => {
      const client = newClient();
      client.record("a_total", 1, { x: "1", y: "2" }, undefined, "counter");
      client.record("a_total", 2.5, { y: "2", x: "1", z: undefined }, undefined, "counter");
      client.record("a_total", 4, { x: "2" }, undefined, "counter");
      client.record("a_total", 8, undefined, undefined, "counter");
      await client.flush();
      assert.deepEqual(metricsSent(), [
        { name: "a_total", labels: { x: "1", y: "2" }, value: 3.5 },
        { name: "a_total", labels: { x: "2" }, value: 4 },
        { name: "a_total", value: 8 },
      ]);
    });

    it("drops and warns, where it is tolerant, when a metric has no method", async (test) => {
      const warnings = test.mock.method(console, "warn", () => {});
      const client = newClient();
      assert.throws(() => client.deletedTotal(), TypeError);
      tolerate();
      client.checkoutCompletedTotal({ plan: "pro" });
      client.deletedTotal({ plan: "pro" });
      const { deletedTotal } = client;
      deletedTotal();
      assert.equal(await client.flush(), true);
      assert.equal(await client, client);
      assert.equal(String(client), "[object Object]");
      assert.equal(JSON.parse(JSON.stringify(client)).stats.recorded, 3);
      const { recorded, accepted, dropped } = client.stats;
      assert.deepEqual({ recorded, accepted, dropped }, { recorded: 3, accepted: 1, dropped: { invalid: 2 } });
      assert.deepEqual(warnings.mock.calls.map((call) => call.arguments), [["pulsegate: deletedTotal()?"]]);
      assert.deepEqual(metricsSent(), [{ name: "checkout_completed_total", labels: { plan: "pro" }, value: 1 }]);
    });

    it("begins another metric before a sum would overflow", async () => {
      const client = newClient();
      for (let i = 0; i < 2; i++) client.record("a_total", Number.MAX_VALUE, {}, undefined, "counter");
      await client.flush();
      assert.deepEqual(metricsSent().map(({ value }) => value), [Number.MAX_VALUE, Number.MAX_VALUE]);
    });

    it("gathers the observations of one series in arrays of at most 1000", async () => {
      const client = newClient();
      client.pageLoadSeconds(0.25);
      client.pageLoadSeconds(Array(2000).fill(0.5));
      await client.flush();
      assert.deepEqual(metricsSent().map(({ value }) => [value].flat().length), [1000, 1000, 1]);
      assert.deepEqual(server.totals, { "page_load_seconds{}": { count: 2001, sum: 1000.25 } });
      assert.deepEqual([client.stats.recorded, client.stats.accepted], [2, 2]);
    });

    it("keeps a gauge's newest level with its own timestamp", async () => {
      const client = newClient();
      client.cartItems(3, {}, 2000.9);
      client.cartItems(1, {}, 1000);
      client.cartItems(4, {}, 2000);
      await client.flush();
      assert.deepEqual(metricsSent(), [{ name: "cart_items", value: 4, timestamp: 2000 }]);
    });

    it("stamps a gauge without a timestamp with the time of the call", async () => {
      const before = Date.now();
      const client = newClient();
      client.cartItems(3);
      const after = Date.now();
      await client.flush();
      const [{ timestamp }] = metricsSent();
      assert.ok(before <= timestamp && timestamp <= after);
    });

    it("does not fold metrics whose type it does not know", async () => {
      const client = newClient();
      for (const value of [1, 2]) client.record("anything", value, {}, 5);
      client.record("many_seconds", [1, 2]);
      await client.flush();
      assert.deepEqual(metricsSent(), [
        { name: "anything", value: 1, timestamp: 5 },
        { name: "anything", value: 2, timestamp: 5 },
        { name: "many_seconds", value: [1, 2] },
      ]);
    });

    it("never throws, and counts what it cannot take as invalid", async () => {
      const client = newClient();
      const hostile = { get plan() { throw new Error("from the page"); } };
      const calls = [
        ["", 1], [7, 1], [undefined, 1], ["a", "1"], ["a", NaN], ["a", Infinity], ["a", null], ["a", 1n], ["a"], ["a", []],
        ["a", [1, "2"]], ["a", 1, "labels"], ["a", 1, { plan: Symbol("x") }], ["a", 1, {}, "now"], ["a", 1, {}, NaN],
        ["a\ud83d", 1], ["a", 1, { plan: "Hello \u{1f600}".slice(0, 7) }], ["a", 1, { "\udc00": "" }],
        ["a_total", -1, {}, undefined, "counter"], ["a_total", [1], {}, undefined, "counter"], ["a", [1], {}, 5, "gauge"],
      ];
      for (const call of calls) client.record(...call);
      assert.equal(client.stats.dropped.invalid, calls.length);
      client.record("a", 1, hostile);
      assert.equal(client.stats.dropped.invalid, calls.length + 1);
      clients.length = 0; // The page's own error was counted as a fault.
      await client.close();
      assert.deepEqual(server.requests, []);
    });

    it("throws nothing for an address or a key that is no text", async () => {
      for (const options of [{ endpoint: Symbol("x") }, { key: Symbol("x") }]) {
        const client = newClient({ ...options, storage: new MemoryStorage() });
        client.checkoutCompletedTotal({ plan: "pro" });
        assert.equal(await client.flush(20), false);
        assert.equal(client.stats.queuedBatches, 1);
      }
      assert.deepEqual(server.requests, []);
    });

    it("has methods that may be called apart from their client", async () => {
      const client = newClient();
      const { record, flush, close } = client;
      record("a_total", 1, {}, undefined, "counter");
      assert.equal(await flush(), true);
      await close();
      assert.equal(client.stats.accepted, 1);
    });

    it("escapes names and labels as JSON does", async () => {
      const labels = { 'quo"te': "line\nbreak $& \u2028 \ud83d\ude00 \\ud83d é", number: 7 };
      const client = newClient();
      client.record("a_total", 1, labels, undefined, "counter");
      await client.flush();
      const sent = metricsSent()[0].labels;
      assert.deepEqual(sent, { ...labels, number: "7" });
    });

    it("drops a record that is larger than a batch", async () => {
      const client = newClient();
      client.record("a_total", 1, { text: "x".repeat(40_000) }, undefined, "counter");
      assert.deepEqual(client.stats.dropped, { too_large: 1 });
    });

    it("seals by count, by size and by time", async () => {
      const client = newClient({ flushIntervalMs: 3600_000 });
      for (let i = 0; i < 100; i++) client.checkoutCompletedTotal({ plan: `p${i}` });
      await eventually(() => server.totals['checkout_completed_total{"plan":"p99"}'] === 1, "a full batch");
      for (let i = 0; i < 40; i++) client.checkoutCompletedTotal({ plan: `${i}${"x".repeat(1000)}` });
      await eventually(() => server.batches.length === 2, "a large batch");
      assert.ok(server.requests[1].body.length < 32_000);
      const quick = newClient({ flushIntervalMs: 10 });
      quick.checkoutCompletedTotal({ plan: "quick" });
      await eventually(() => server.totals['checkout_completed_total{"plan":"quick"}'] === 1, "an old batch");
    });

    it("numbers batches 1, 2, 3 and tells the lowest unsettled as floor", async () => {
      server.rules = [{ matches: '"sequence":2,', status: 503 }];
      const client = newClient({ retryDelayMs: 1, maxRetryDelayMs: 2 });
      for (let sequence = 1; sequence <= 4; sequence++) {
        client.checkoutCompletedTotal({ plan: `${sequence}` });
        await client.flush(sequence === 1 ? undefined : 0);
      }
      await eventually(() => server.batches.some(({ sequence }) => sequence === 4), "the fourth batch");
      const floors = new Map(server.batches.map(({ sequence, floor }) => [sequence, floor]));
      assert.deepEqual([...floors].sort(), [[1, 1], [2, 2], [3, 2], [4, 2]]);
      assert.equal(new Set(server.batches.map(({ producer }) => producer)).size, 1);
      server.rules = [];
      await client.flush();
      assert.equal(client.stats.accepted, 4);
    });

    it("repeats a batch byte by byte until it is answered, and it counts once", async () => {
      server.script = [{ status: 500 }, { cut: true }, { apply: true, cut: true }, { status: 408 }, { status: 200 }];
      const client = newClient();
      client.checkoutCompletedTotal({ plan: "pro" }, 5);
      assert.equal(await client.flush(), true);
      assert.equal(server.requests.length, 6);
      assert.equal(new Set(server.requests.map(({ body }) => body)).size, 1);
      assert.deepEqual(server.totals, { 'checkout_completed_total{"plan":"pro"}': 5 });
      assert.deepEqual([client.stats.accepted, client.stats.retries], [1, 5]);
    });

    it("waits longer after each failure, at random, and as long as Retry-After asks", async () => {
      server.script = [{ status: 503 }, { status: 503 }, { status: 429, headers: { "Retry-After": "1" } }];
      const client = newClient({ retryDelayMs: 100 });
      client.checkoutCompletedTotal({ plan: "pro" });
      assert.equal(await client.flush(), true);
      const times = server.requests.map(({ at }) => at);
      const [first, second, third] = times.slice(1).map((at, index) => at - times[index]);
      assert.ok(first >= 49 && second >= 99, `${first} ${second}`);
      assert.ok(third >= 1000 && third < 3000, `${third}`);
    });

    it("understands Retry-After as a date, and does not hurry against it", async () => {
      const date = new Date(Date.now() + 2000).toUTCString();
      server.script = [{ status: 503, headers: { "Retry-After": date } }];
      const client = newClient();
      client.checkoutCompletedTotal({ plan: "pro" });
      assert.equal(await client.flush(200), false);
      assert.equal(await client.flush(200), false);
      assert.equal(server.requests.length, 1);
      assert.equal(await client.flush(), true);
    });

    it("does not let a batch that the server cannot digest hold up the others", async () => {
      server.rules = [{ matches: "poison", status: 500 }];
      const client = newClient({ maxBatchMetrics: 1 });
      client.checkoutCompletedTotal({ plan: "poison" });
      for (let i = 0; i < 5; i++) client.checkoutCompletedTotal({ plan: "pro" });
      await eventually(() => client.stats.accepted === 5, "the other five");
      assert.equal(client.stats.queuedBatches, 1);
    });

    it("keeps batches while the key is refused", async () => {
      const error = { code: "INVALID_API_KEY", message: "Unknown key." };
      server.script = [{ status: 401, body: { error } }, { status: 403 }];
      const client = newClient();
      client.checkoutCompletedTotal({ plan: "pro" });
      assert.equal(await client.flush(), true);
      assert.deepEqual([client.stats.accepted, client.stats.retries], [1, 2]);
    });

    it("counts what the server rejects in records, and does not repeat it", async () => {
      const rejected = [{ index: 1, code: "LABEL_VALUE_NOT_ALLOWED", message: "…" }];
      server.script = [
        { body: { accepted: 1, rejected } },
        { status: 422, body: { error: { code: "BATCH_REJECTED", message: "…", details: { accepted: 0, rejected } } } },
        { status: 413, body: { error: { code: "BODY_TOO_LARGE", message: "…" } } },
        { status: 422, body: { error: { code: "SEQUENCE_OUT_OF_WINDOW", message: "…" } } },
        { status: 400 },
      ];
      const client = newClient();
      client.checkoutCompletedTotal({ plan: "good" });
      for (let i = 0; i < 3; i++) client.checkoutCompletedTotal({ plan: "bad" });
      await client.flush();
      assert.deepEqual([client.stats.accepted, client.stats.rejected], [1, 3]);
      for (let i = 0; i < 4; i++) {
        client.checkoutCompletedTotal({ plan: "more" });
        await client.flush();
      }
      const { accepted, dropped, ...stats } = client.stats;
      assert.deepEqual([accepted, stats.rejected, dropped], [1, 5, { too_large: 1, out_of_window: 1 }]);
      assert.deepEqual([server.requests.length, stats.retries, stats.queuedBatches], [5, 0, 0]);
    });

    it("drops the oldest batches over the bound, counts them and says so", async () => {
      await server.down();
      const drops = [];
      const client = newClient({ maxBatchMetrics: 1, maxQueueBytes: 2000, onDrop: (...drop) => drops.push(drop) });
      for (let i = 0; i < 50; i++) client.checkoutCompletedTotal({ plan: `${i}` });
      const { queuedBatches, dropped } = client.stats;
      assert.equal(queuedBatches + dropped.queue_full, 50);
      assert.equal(drops.length, dropped.queue_full);
      assert.deepEqual(drops[0], ["queue_full", 1]);
      await server.up();
      assert.equal(await client.flush(), true);
      const kept = Object.keys(server.totals).map((series) => Number(/\d+/.exec(series)));
      assert.deepEqual(kept.sort((a, b) => a - b), Array.from({ length: queuedBatches }, (_, i) => 50 - queuedBatches + i));
    });

    it("survives a listener that throws or records", async () => {
      const client = newClient({ onDrop: () => { client.checkoutCompletedTotal({ plan: "pro" }); throw new Error("no"); } });
      client.record("a", NaN);
      assert.equal(await client.flush(), true);
      assert.deepEqual([client.stats.accepted, client.stats.faults], [1, 1]);
      clients.length = 0;
      await client.close();
    });

    it("never lets a producer's sequence run 4096 ahead of its floor", async () => {
      await server.down();
      const client = newClient({ maxBatchMetrics: 1, maxQueueBytes: 1e9 });
      for (let i = 0; i < 4200; i++) client.checkoutCompletedTotal({ plan: "pro" });
      assert.deepEqual([client.stats.queuedBatches, client.stats.dropped], [4096, { queue_full: 104 }]);
    });

    it("stores a batch before it is sent, and removes it once it is settled", async () => {
      const storage = new MemoryStorage();
      const client = newClient({ storage, flushIntervalMs: 3600_000 });
      client.checkoutCompletedTotal({ plan: "pro" });
      assert.equal(storage.length, 0);
      const flushed = client.flush();
      assert.equal(storage.length, 1);
      const stored = storage.getItem(storage.key(0));
      await flushed;
      assert.equal(server.requests[0].body, stored);
      assert.equal(storage.length, 0);
    });

    it("delivers what an earlier page left behind, as that page numbered it", async () => {
      const storage = new MemoryStorage();
      storage.setItem("the page's own", "value");
      await server.down();
      const earlier = newClient({ storage, maxBatchMetrics: 2 });
      for (let i = 0; i < 5; i++) earlier.checkoutCompletedTotal({ plan: `${i}` });
      await earlier.close(20);
      const bodies = Array.from({ length: storage.length }, (_, i) => storage.getItem(storage.key(i)));
      assert.equal(bodies.length, 4);
      assert.deepEqual([earlier.stats.adopted, earlier.stats.queuedBatches, earlier.stats.dropped], [-5, 0, {}]);
      await server.up();
      const later = newClient({ storage });
      later.checkoutCompletedTotal({ plan: "later" });
      await eventually(() => later.stats.accepted === 6, "all six");
      assert.ok(bodies.slice(1).every((body) => server.requests.some((request) => request.body === body)));
      assert.equal(Object.values(server.totals).reduce((sum, value) => sum + value), 6);
      assert.deepEqual([later.stats.adopted, storage.length], [5, 1]);
    });

    it("delivers an earlier key's batches by the queue's name, and leaves other queues alone", async () => {
      const storage = new MemoryStorage();
      await server.down();
      for (const queue of ["shop", "other/1"]) {
        const earlier = newClient({ storage, queue, key: "pk_old" });
        earlier.checkoutCompletedTotal({ queue });
        await earlier.close(0);
      }
      await server.up();
      const later = newClient({ storage, queue: "shop" });
      await eventually(() => later.stats.accepted === 1, "the queue's batch");
      assert.equal(server.requests[0].key, KEY);
      assert.equal(storage.length, 1);
      assert.ok(storage.key(0).includes("/other/1/"));
    });

    it("delivers what clients that knew no queue's name left under its key", async () => {
      const storage = new MemoryStorage();
      await server.down();
      const earlier = newClient({ storage });
      earlier.checkoutCompletedTotal();
      await earlier.close(0);
      await server.up();
      const later = newClient({ storage, queue: "shop" });
      await eventually(() => later.stats.accepted === 1, "the earlier client's batch");
      assert.equal(storage.length, 0);
    });

    it("takes nothing else in storage for its batches, without a key either", async () => {
      const storage = new MemoryStorage();
      storage.setItem("cart", "3 apples");
      const client = newClient({ storage, key: undefined });
      client.checkoutCompletedTotal();
      assert.equal(await client.flush(), true);
      assert.deepEqual([client.stats.accepted, client.stats.adopted], [1, 0]);
      assert.deepEqual([storage.length, storage.getItem("cart")], [1, "3 apples"]);
    });

    for (const key of ["pk_revoked", undefined]) {
      it(`leaves what pages left behind to one that can send, where its key is ${key}`, async (test) => {
        const held = new Set();
        const request = async (name, _, granted) => {
          if (held.has(name)) return granted(null);
          held.add(name);
          await granted({});
          held.delete(name);
        };
        const platform = Object.getOwnPropertyDescriptor(globalThis, "navigator") ?? { configurable: true };
        test.after(() => Object.defineProperty(globalThis, "navigator", platform));
        Object.defineProperty(globalThis, "navigator", { value: { locks: { request } }, configurable: true });
        const storage = new MemoryStorage();
        const options = { storage, queue: "shop" };
        await server.down();
        const earlier = newClient(options);
        earlier.record("left_total", 1, {}, undefined, "counter");
        await earlier.close(0);
        await server.up();
        server.refusedKey = `${key}`;
        const useless = newClient({ ...options, key, maxQueueBytes: 200, maxBatchMetrics: 1 });
        if (key) await eventually(() => server.requests.length && !useless.stats.queuedBatches, "its key is refused");
        for (let i = 0; i < 2; i++) useless.record("own_total", 1, {}, undefined, "counter");
        await useless.flush(20);
        assert.deepEqual([useless.stats.adopted, useless.stats.dropped], [0, { queue_full: 1 }]);
        newClient(options);
        await eventually(() => server.totals["left_total{}"] === 1, "what was left, the useless client alive");
      });
    }

    it("gives up seven days after a batch was sealed, and forgets abandoned queues a day later", async () => {
      const storage = new MemoryStorage();
      const keyAged = (queue, days) => `pulsegate/${queue}/producer/7/${Date.now() - days * 86_400_000}/3`;
      storage.setItem(keyAged("shop", 7.01), "{}");
      storage.setItem(keyAged("shop", -1.01), "{ }");
      storage.setItem(keyAged("other", 7.5), "{}");
      storage.setItem(keyAged("gone", 8.5), "{}");
      const client = newClient({ storage, queue: "shop" });
      await eventually(() => client.stats.dropped.expired === 6, "the old batch given up, and that of a wrong clock");
      assert.deepEqual(server.requests, []);
      assert.deepEqual([storage.length, storage.key(0).includes("/other/")], [1, true]);
    });

    it("keeps what it has not tried yet, and what is from a clock that was hours ahead, when the clock is set right", async (test) => {
      const storage = new MemoryStorage();
      const earlier = "00000000-0000-4000-8000-000000000001";
      const body = { producer: earlier, sequence: 1, floor: 1, metrics: [{ name: "a_total", value: 1 }] };
      storage.setItem(`pulsegate/${KEY}/${earlier}/1/${Date.now() + 30.9 * 86_400_000}/1`, JSON.stringify(body));
      await server.down();
      const client = newClient({ storage: null, maxBatchMetrics: 1, retryDelayMs: 3600_000 });
      for (let i = 0; i < 3; i++) client.record("b_total", 1, {}, undefined, "counter");
      await eventually(() => client.stats.queuedBatches === 3, "three batches");
      await client.flush(50);
      const right = Date.now() + 30 * 86_400_000;
      test.mock.method(Date, "now", () => right);
      await server.up();
      const adopting = newClient({ storage });
      await eventually(() => adopting.stats.accepted === 1, "the adopted one");
      assert.equal(await client.flush(), true);
      assert.equal(client.stats.accepted + client.stats.dropped.expired, 3);
      assert.ok(client.stats.accepted >= 1);
    });

    it("goes on in memory when storage fails, and counts it", async () => {
      for (const storage of [new MemoryStorage(10), new Proxy({}, { get() { throw new Error("denied"); } })]) {
        const client = newClient({ storage });
        client.checkoutCompletedTotal({ plan: "pro" });
        assert.equal(await client.flush(), true);
        assert.equal(client.stats.accepted, 1);
        assert.ok(client.stats.storageErrors >= 1);
      }
    });

    it("counts what is lost by closing", async () => {
      await server.down();
      const client = newClient();
      client.checkoutCompletedTotal({ plan: "pro" });
      await client.close(20);
      client.checkoutCompletedTotal({ plan: "pro" });
      assert.deepEqual([client.stats.recorded, client.stats.dropped], [2, { closed: 2 }]);
      await server.up();
    });

    it("folds longer while the server is away, and sends at once when it is back", async () => {
      await server.down();
      const client = newClient({ flushIntervalMs: 200, retryDelayMs: 1, maxRetryDelayMs: 50 });
      client.checkoutCompletedTotal({ plan: "first" });
      await eventually(() => client.stats.retries > 6, "some retries");
      client.checkoutCompletedTotal({ plan: "second" });
      await server.up();
      await eventually(() => client.stats.accepted === 2, "both, sooner than 30 intervals");
    });
  });
}
