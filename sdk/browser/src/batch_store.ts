import type { Batch } from "./batch";
import { ABANDONED_AFTER_DAYS, DAY_MS } from "./limits";

// Sealed batches are kept in localStorage, one item each, so that tabs never write the same item. It is synchronous:
// a batch is kept before it is sent, also while the page is going away.

/** pulsegate/<queue>/<producer>/<sequence>/<sealed at>/<records> */
const KEY = /^pulsegate\/(.*)\/(.+)\/(\d+)\/(\d+)\/(\d+)$/;

/** Stores the batch in the queue. Throws where storage does not take it. */
export function store(storage: Storage, queue: string, batch: Batch): void {
  const key = `pulsegate/${queue}/${batch.producer}/${batch.sequence}/${batch.sealedAt}/${batch.records}`;
  storage.setItem(key, batch.payload);
  batch.stored = key;
}

/** The queues' batches, whoever numbered them. Deletes what queues that no page serves any more left behind. */
export function storedBatches(storage: Storage, queues: readonly string[]): Batch[] {
  const batches: Batch[] = [];
  for (const key of Array.from(storage, (_, index) => `${storage.key(index)}`)) {
    const [, name, producer, sequence, sealedAt, records] = KEY.exec(key) ?? [];
    const payload = producer && queues.includes(name!) && storage.getItem(key);
    if (payload) {
      batches.push({
        producer,
        sequence: +sequence!,
        sealedAt: +sealedAt!,
        records: +records!,
        payload,
        recordsByMetric: [],
        attempts: 0,
        stored: key,
      });
    } else if (Date.now() - +sealedAt! > ABANDONED_AFTER_DAYS * DAY_MS) {
      storage.removeItem(key);
    }
  }
  return batches;
}
