import type { Batch } from "./batch";
import { store, storedBatches } from "./batch_store";
import type { DropReason, Options } from "./client";
import { newOwnership } from "./ownership";
import type { Tally } from "./tally";

/** The sealed batches that this page has to send; bounded in bytes, and stored where there is storage. */
export interface Queue {
  /** Oldest first. */
  batches(): readonly Batch[];
  enqueue(batch: Batch): void;
  /** The batch is accepted, rejected or dropped: nobody sends it again. */
  settle(batch: Batch): void;
  drop(batch: Batch, reason: DropReason): void;
  /**
   * Marks the producer as this page's and takes over the stored batches of pages that are gone, calling `taken`
   * where there were any.
   */
  adopt(ownProducer: string, taken: () => void): void;
  /** Lets other pages take what is stored. */
  release(): void;
  /** Leaves to other pages what is stored, but for one producer's; keeps what only this page has. */
  handOver(kept?: string): void;
  /** Resolves to true once the batches of this moment are settled, to false after the timeout. */
  settled(timeoutMs: number): Promise<boolean>;
}

/** `names`: of the stored batches that belong together; new ones get the first. */
export function newQueue(storage: Options["storage"], names: readonly string[], maxBytes: number, tally: Tally): Queue {
  const { counts, guard } = tally;
  const guardStorage = (run: () => void): void => guard(run, "storageErrors");
  const ownership = newOwnership();
  /** Of each settled() whether it has to wait on. */
  let waiting: (() => unknown)[] = [];
  let batches: Batch[] = [];

  const forget = (gone: readonly Batch[]): void => {
    batches = batches.filter((batch) => !gone.includes(batch));
    for (const batch of gone) batch.settled = true;
    waiting = waiting.filter((pending) => pending());
  };

  const settle = (batch: Batch): void => {
    if (batch.stored) guardStorage(() => storage!.removeItem(batch.stored));
    forget([batch]);
  };

  const drop = (batch: Batch, reason: DropReason): void => {
    if (batch.settled) return;
    settle(batch);
    tally.drop(reason, batch.records);
  };

  const dropOldest = (): void => {
    let bytes = batches.reduce((sum, batch) => sum + batch.payload.length, 0);
    for (const batch of batches) {
      if (bytes <= maxBytes) return;
      if (batch.inFlight) continue;
      bytes -= batch.payload.length;
      drop(batch, "queue_full");
    }
  };

  const load = (producer: string): void => {
    for (const batch of storedBatches(storage!, names)) {
      if (batch.producer !== producer || batches.some(({ payload }) => payload === batch.payload)) continue;
      batches.push(batch);
      counts.adopted += batch.records;
    }
    batches.sort((a, b) => a.sealedAt - b.sealedAt || a.sequence - b.sequence);
    dropOldest();
  };

  return {
    batches: () => batches,
    settle,
    drop,
    enqueue(batch) {
      batches.push(batch);
      dropOldest();
      if (storage && !batch.settled) guardStorage(() => store(storage, names[0]!, batch));
    },
    adopt(ownProducer, taken) {
      if (!storage) return;
      guardStorage(() => {
        const producers = new Set([ownProducer]);
        for (const { producer } of storedBatches(storage, names)) producers.add(producer);
        for (const producer of producers) {
          const take = (): void => guard(() => (load(producer), taken()));
          ownership.take(producer, take).catch(() => counts.storageErrors++);
        }
      });
    },
    release: ownership.release,
    handOver(kept) {
      ownership.release(kept);
      const left = batches.filter((batch) => batch.stored && batch.producer !== kept);
      for (const { records } of left) counts.adopted -= records;
      forget(left);
    },
    settled(timeoutMs) {
      const awaited = [...batches];
      return new Promise((resolve) => {
        // Not tally.later(): whoever waits for this keeps a Node process alive.
        const timer = setTimeout(resolve, timeoutMs, false);
        waiting.push(() => awaited.some((batch) => !batch.settled) || (clearTimeout(timer), resolve(true)));
        forget([]);
      });
    },
  };
}
