import { newBatch, type Batch } from "./batch";
import { ABANDONED_AFTER_DAYS, DAY_MS } from "./limits";

// Sealed batches are kept in localStorage, one item each, so that tabs never write the same item. It is synchronous:
// a batch is kept before it is sent, also while the page is going away.

/** pulsegate/<queue>/<producer>/<sequence>/<sealed at>/<records> */
const KEY = /^pulsegate\/(.*)\/(.+)\/(\d+)\/(\d+)\/(\d+)$/;

export function storageKey(queue: string, { producer, sequence, sealedAt, records }: Batch): string {
  return `pulsegate/${queue}/${producer}/${sequence}/${sealedAt}/${records}`;
}

/** The queue's batches, whoever numbered them. Deletes what queues that no page serves any more left behind. */
export function storedBatches(storage: Storage, queue: string): Batch[] {
  const batches: Batch[] = [];
  for (const key of Array.from(storage, (_, index) => `${storage.key(index)}`)) {
    const [, name, producer, sequence, sealedAt, records] = KEY.exec(key) ?? [];
    const payload = name === queue && storage.getItem(key);
    if (payload) {
      const numbers = { sequence: +sequence!, sealedAt: +sealedAt!, records: +records! };
      batches.push(newBatch({ producer: producer!, ...numbers, payload, recordsByMetric: [] }, true));
    } else if (Date.now() - +sealedAt! > ABANDONED_AFTER_DAYS * DAY_MS) {
      storage.removeItem(key);
    }
  }
  return batches;
}
