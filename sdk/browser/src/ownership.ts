/**
 * Which page sends a producer's stored batches: the one that holds the Web Lock named by the producer, from when it
 * takes it until it ends or is frozen. Plain HTTP pages have no Web Locks: there every page takes everything, so that
 * a batch may be sent by two pages, and is counted once.
 */
export interface Ownership {
  /** Calls `taken` if no other page holds the producer. */
  take(producer: string, taken: () => void): Promise<unknown>;
  /** Lets others take what this page holds. A held lock would keep the page out of the back/forward cache. */
  release(): void;
}

export function newOwnership(): Ownership {
  const locks = globalThis.navigator?.locks as LockManager | undefined;
  let releases: (() => void)[] = [];

  return {
    async take(producer, taken) {
      if (!locks) return taken();
      await locks.request(`pulsegate/${producer}`, { ifAvailable: true }, (lock) => {
        if (!lock) return undefined;
        taken();
        return new Promise<void>((release) => releases.push(release));
      });
    },
    release() {
      for (const release of releases) release();
      releases = [];
    },
  };
}
