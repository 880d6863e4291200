import { expired, type Batch } from "./batch";
import type { Options } from "./client";
import { KEEPALIVE_BYTES, MAX_RETRY_AFTER_MS, REFUSED_KEY_DELAY_MS, REQUEST_TIMEOUT_MS, SENT_WHEN_HIDDEN } from "./limits";
import type { Queue } from "./queue";
import type { Tally, Timer } from "./tally";

/** Not tried again: 202, and a 4xx other than a refused key, a timeout, "too early" and a rate limit. */
const FINAL = /^(202|4(?!01|03|08|25|29))/;

/** The JSON of any answer. */
interface Answer {
  readonly rejected?: readonly { index: number; code: string; message: string }[];
  readonly error?: { code: string; message: string };
}

/** Sends the queue's batches one after another, and again until each is settled. */
export interface Delivery {
  /** Sends the next batch when it is time; but not at once: to start a request takes a while. */
  pumpSoon(): void;
  /** Tries at once, for the network is back or the caller is in a hurry; but not against the server's wish. */
  hurry(): void;
  /** Sends as much as may outlive the page, first what only this page has. */
  sendBeforeHidden(): void;
  /** Whether there is no key, or the last answer refused it: what is adopted then could not be delivered. */
  refused(): boolean;
  /** Failed attempts since the last answer. */
  failures(): number;
  stop(): void;
}

export function newDelivery(
  options: Options,
  queue: Queue,
  tally: Tally,
  onRecovered: () => void,
  onRefused: () => void,
): Delivery {
  const { counts, guard, warnOnce } = tally;
  // On the monotonic clock: no attempt before, by this client's patience and by the server's wish.
  let backoffUntil = 0;
  let retryAfterUntil = 0;
  let failures = 0;
  let refused = !options.key;
  let keepaliveBytes = 0;
  let stopped = false;
  let timer: Timer | undefined;

  const pumpIn = (delayMs: number): void => {
    clearTimeout(timer);
    timer = tally.later(pump, delayMs);
  };

  const unexpired = (): readonly Batch[] => {
    for (const batch of queue.batches()) if (expired(batch)) queue.drop(batch, "expired");
    return queue.batches();
  };

  const pump = (): void => {
    if (stopped) return;
    const batches = unexpired();
    if (!batches.length || batches.some((batch) => batch.inFlight)) return;
    const waitMs = Math.max(backoffUntil, retryAfterUntil) - performance.now();
    if (waitMs > 0) return pumpIn(waitMs);
    // The one with the fewest attempts: none that the server cannot digest holds up the others.
    void send(batches.reduce((next, batch) => (batch.attempts < next.attempts ? batch : next)));
  };

  // Requests outlive the page where they may: not a retry, for the browser may be what refused the batch.
  const send = async (batch: Batch, keepalive = !batch.attempts): Promise<void> => {
    const { payload: body } = batch;
    keepaliveBytes += body.length;
    batch.inFlight = true;
    if (batch.attempts++) counts.retries++;
    let status = 0;
    let retryAfter: string | null = null;
    let answer: Answer = {};
    try {
      // Not before: options that are no text throw.
      const address = `${options.endpoint}`.replace(/\/+$/, "");
      const url = `${address}/api/v1/metrics?key=${encodeURIComponent(options.key)}`;
      // A simple request (text/plain, the publishable key in the address) needs no preflight: one round trip, not two.
      const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
      const response = await fetch(url, { method: "POST", body, keepalive, credentials: "omit", signal });
      status = response.status;
      refused = status === 401 || status === 403;
      retryAfter = response.headers.get("Retry-After");
      answer = Object(await response.json());
    } catch {
      // No answer (status 0 is retried), no address, or an answer that is no JSON: the status says enough.
    }
    keepaliveBytes -= body.length;
    batch.inFlight = false;
    guard(() => {
      if (answer.error && status < 500) warnOnce(answer.error.code, answer.error.message);
      if (!FINAL.test(`${status}`)) {
        retryLater(retryAfter);
        if (refused) onRefused();
      } else {
        if (!batch.settled) conclude(batch, status, answer);
        if (failures) onRecovered();
        failures = backoffUntil = 0;
      }
      pump();
    });
  };

  const conclude = (batch: Batch, status: number, { error, rejected = [] }: Answer): void => {
    if (status === 413) return queue.drop(batch, "too_large");
    if (error?.code === "SEQUENCE_OUT_OF_WINDOW") return queue.drop(batch, "out_of_window");
    let lost = status === 202 ? 0 : batch.records;
    for (const { index, code, message } of rejected) {
      warnOnce(code, message);
      lost += batch.recordsByMetric[index] ?? 1;
    }
    counts.rejected += lost;
    counts.accepted += batch.records - lost;
    queue.settle(batch);
  };

  const retryLater = (retryAfter: string | null): void => {
    const now = performance.now();
    // RFC 9110 section 10.2.3: seconds or an HTTP date.
    if (retryAfter) {
      const askedMs = +retryAfter * 1000 || Date.parse(retryAfter) - Date.now() || 0;
      // A tenth more, at random: else everybody who was told the same second comes in that second.
      retryAfterUntil = now + Math.min(askedMs, MAX_RETRY_AFTER_MS) * (1 + Math.random() / 10);
    }
    // Of several requests that fail together one counts.
    if (now < backoffUntil) return;
    const longestMs = refused ? REFUSED_KEY_DELAY_MS : (options.maxRetryDelayMs ?? 60_000);
    const delayMs = Math.min((options.retryDelayMs ?? 1000) * 2 ** failures++, longestMs);
    backoffUntil = now + delayMs * (0.5 + Math.random() / 2);
  };

  return {
    pumpSoon: () => pumpIn(0),
    hurry() {
      backoffUntil = 0;
      pump();
    },
    sendBeforeHidden() {
      if (stopped || performance.now() < retryAfterUntil) return;
      const idle = unexpired().filter((batch) => !batch.inFlight);
      idle.sort((a, b) => +!b.stored - +!a.stored);
      for (const batch of idle.slice(0, SENT_WHEN_HIDDEN)) {
        if (keepaliveBytes + batch.payload.length <= KEEPALIVE_BYTES) void send(batch, true);
      }
    },
    refused: () => refused,
    failures: () => failures,
    stop() {
      stopped = true;
    },
  };
}
