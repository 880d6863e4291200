import { DAY_MS } from "./limits";

/** A sealed batch: its producer, sequence and bytes never change again, however often it is sent. */
export interface Batch {
  readonly producer: string;
  readonly sequence: number;
  /** Unix milliseconds. */
  readonly sealedAt: number;
  /** How many calls of record() it stands for. */
  readonly records: number;
  /** The JSON text of every attempt. */
  readonly payload: string;
  /** Calls of record() by metric; unknown for a batch that an earlier page sealed. */
  readonly recordsByMetric: readonly number[];
  /** By this page. */
  attempts: number;
  inFlight?: boolean;
  /** The item of storage that holds it, so that another page can send it when this one is gone; empty: none. */
  stored: string;
  /** Whether this page has nothing more to do with it. */
  settled?: boolean;
}

/**
 * Whether to give it up after seven days: the server remembers a producer for 8, a retry after that could count twice.
 * Of one that this page has not tried yet there is no retry. What another page sealed more than a day in the future is of
 * an age that nobody knows.
 */
export function expired({ sealedAt, attempts, recordsByMetric }: Batch): boolean {
  const days = (Date.now() - sealedAt) / DAY_MS;
  return recordsByMetric.length ? attempts > 0 && days > 7 : days > 7 || days < -1;
}

/** A random UUID, version 4. `crypto.randomUUID` is missing on plain HTTP pages, `crypto` itself in Node 18. */
export function newProducer(): string {
  const random = (): number => globalThis.crypto?.getRandomValues(new Uint8Array(1))[0] ?? Math.random() * 256;
  return "10000000-1000-4000-8000-100000000000".replace(/[018]/g, (digit) =>
    (+digit ^ (random() & (15 >> (+digit / 4)))).toString(16),
  );
}
