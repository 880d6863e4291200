// A shop's page that counts with the generated browser client, here under Node.js. Prints what it has sent, as JSON.
//
//   node browser_traffic.mjs /path/of/pulsegate-metrics.mjs 500      takes 500 orders

const [client, count] = process.argv.slice(2);
const orders = Number(count);
const { Metrics } = await import(client);
const metrics = new Metrics();
const source = { source: "browser" };

const byPlan = new Map();
let secondsInAll = 0;
for (let order = 0; order < orders; order += 1) {
  const plan = order % 4 === 0 ? "pro" : "free";
  byPlan.set(plan, (byPlan.get(plan) ?? 0) + 1);
  metrics.demoOrdersTotal({ ...source, plan });
  const seconds = (order % 24) / 8; // eighths add up exactly
  secondsInAll += seconds;
  metrics.demoCheckoutDurationSeconds(source, seconds);
  metrics.demoOpenCarts(source, order % 13);
}
await metrics.close(30_000);

const sent = [
  ...Array.from(byPlan, ([plan, taken]) => ["demo_orders_total", { ...source, plan }, taken]),
  ["demo_checkout_duration_seconds_count", source, orders],
  ["demo_checkout_duration_seconds_sum", source, secondsInAll],
  ["demo_open_carts", source, (orders - 1) % 13],
];
console.log(JSON.stringify({ sent, lost: metrics.stats.recorded - metrics.stats.accepted }));
