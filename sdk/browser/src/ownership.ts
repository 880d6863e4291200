/**
 * Which page sends a producer's stored batches: the one that holds the Web Lock named by the producer, from when it
 * takes it until it ends or is frozen. Plain HTTP pages have no Web Locks: there every page takes everything, so that
 * a batch may be sent by two pages, and is counted once.
 */
export interface Ownership {
  /** Calls `taken` if no other page holds the producer. */
  take(producer: string, taken: () => void): Promise<unknown>;
  /**
   * Lets others take what this page holds, but for one producer. A held lock would keep the page out of the
   * back/forward cache.
   */
  release(kept?: string): void;
}

export function newOwnership(): Ownership {
  const locks = globalThis.navigator?.locks as LockManager | undefined;
  const releases = new Map<string, () => void>();

  return {
    async take(producer, taken) {
      if (!locks) return taken();
      await locks.request(`pulsegate/${producer}`, { ifAvailable: true }, (lock) => {
        if (!lock) return undefined;
        taken();
        return new Promise<void>((release) => releases.set(producer, release));
      });
    },
    release(kept) {
      for (const [producer, release] of releases) if (producer !== kept) release();
    },
  };
}
