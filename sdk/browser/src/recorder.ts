import { newProducer } from "./batch";
import type { Client, Options } from "./client";
import { newDelivery } from "./delivery";
import { ADOPT_INTERVAL_MS, MAX_BATCH_BYTES, MAX_SEQUENCE_SPAN, MAX_SLOWDOWN } from "./limits";
import { newMeasurement } from "./measurement";
import { newOpenBatch } from "./open_batch";
import { newQueue } from "./queue";
import { newTally, type Timer } from "./tally";

type RecordCall = Parameters<Client["record"]>;

/** What a Client is: composed of functions over closed variables, which minify to half of what fields do. */
export function newRecorder(options: Options): Client {
  const { flushIntervalMs = 1000, maxBatchMetrics = 100, maxBatchBytes = MAX_BATCH_BYTES } = options;
  const batchMetrics = Math.min(maxBatchMetrics, 100);
  const batchBytes = Math.min(maxBatchBytes, MAX_BATCH_BYTES);
  const { storage = pageStorage(), queue: queueName = options.key, maxQueueBytes = 1_000_000 } = options;
  const tally = newTally(options.onDrop);
  const { counts, guard, later } = tally;
  // Clients that were not told a queue's name have left theirs under the key.
  const queue = newQueue(storage, [queueName, options.key], maxQueueBytes, tally);
  const delivery = newDelivery(options, queue, tally, () => seal(), () => queue.handOver(producer));
  const listening = new AbortController();
  let producer = newProducer();
  let sequence = 0;
  let open = newOpenBatch();
  let sealTimer: Timer | undefined;
  let adoptTimer: Timer | undefined;
  let closed = false;
  /** Between pagehide and whatever ends the page: what is recorded then cannot wait for a timer. */
  let gone = false;

  const add = (...call: RecordCall): void => {
    const measurement = newMeasurement(...call);
    if (measurement.head.length > batchBytes) return tally.drop("too_large", 1);
    measurement.values.forEach((value, index) => {
      open.add(measurement, value, index ? 0 : 1);
      if (open.metricCount() >= batchMetrics || open.characters() >= batchBytes) seal();
    });
    if (gone) return leave();
    // While the server is away there is no hurry: counters fold further, and a long outage takes fewer batches.
    const slowdown = Math.min(2 ** delivery.failures(), MAX_SLOWDOWN);
    if (open.metricCount()) sealTimer ??= later(seal, flushIntervalMs * slowdown);
  };

  /** Fixes the open batch's producer, sequence, floor and bytes, and queues it. */
  const seal = (): void => {
    clearTimeout(sealTimer);
    sealTimer = undefined;
    if (!open.metricCount()) return;
    sequence++;
    const batch = open.seal(producer, sequence, floor());
    open = newOpenBatch();
    queue.enqueue(batch);
    delivery.pumpSoon();
  };

  /** The lowest sequence that this producer may still send: everything below is settled. */
  const floor = (): number => {
    let lowest = sequence;
    for (const batch of queue.batches()) {
      if (batch.producer !== producer) continue;
      if (sequence - batch.sequence >= MAX_SEQUENCE_SPAN) queue.drop(batch, "queue_full");
      else lowest = Math.min(lowest, batch.sequence);
    }
    return lowest;
  };

  const adopt = (): void => {
    adoptTimer = later(adopt, ADOPT_INTERVAL_MS);
    if (!delivery.refused()) queue.adopt(producer, delivery.pumpSoon);
  };

  /** The page comes back from the back/forward cache: others may have taken its producer meanwhile. */
  const renew = (): void => {
    producer = newProducer();
    sequence = 0;
    queue.handOver();
    clearTimeout(adoptTimer);
    adopt();
  };

  const leave = (): void => {
    seal();
    delivery.sendBeforeHidden();
  };

  const onPage = ({ type, persisted }: Event & { persisted?: boolean }): void => {
    if (type === "pageshow") {
      gone = false;
      if (persisted) renew();
    } else if (type === "pagehide") {
      gone = true;
      leave();
      queue.release();
    } else if (type === "visibilitychange" && document.visibilityState === "hidden") {
      leave();
    } else {
      delivery.hurry();
    }
  };

  const stop = (): void => {
    listening.abort();
    clearTimeout(adoptTimer);
    delivery.stop();
    queue.handOver();
    for (const batch of queue.batches()) queue.drop(batch, "closed");
  };

  const flush = async (timeoutMs = 10_000): Promise<boolean> => {
    guard(seal);
    guard(delivery.hurry);
    return queue.settled(timeoutMs);
  };

  for (const type of ["visibilitychange", "pagehide", "pageshow", "online"]) {
    const listen = (event: Event): void => guard(() => onPage(event));
    globalThis.addEventListener?.(type, listen, { signal: listening.signal });
  }
  adoptTimer = later(adopt, 0);

  return {
    flush,
    record(...call) {
      counts.recorded++;
      if (closed) return tally.drop("closed", 1);
      try {
        add(...call);
      } catch (error) {
        if (!(error instanceof TypeError)) counts.faults++;
        tally.drop("invalid", 1);
      }
    },
    async close(timeoutMs) {
      closed = true;
      await flush(timeoutMs);
      guard(stop);
    },
    get stats() {
      return { ...counts, dropped: { ...counts.dropped }, queuedBatches: queue.batches().length };
    },
  };
}

/** Undefined where there is no page (Node, workers), or it may not store anything. */
function pageStorage(): Storage | undefined {
  try {
    return globalThis.document && localStorage;
  } catch {
    return undefined;
  }
}
