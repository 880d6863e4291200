/** A sealed batch: its producer, sequence and bytes never change again, however often it is sent. */
export interface SealedBatch {
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
}

export interface Batch extends SealedBatch {
  attempts: number;
  inFlight: boolean;
  /** Whether storage holds it, so that another page can send it when this one is gone. */
  stored: boolean;
  /** Whether this page has nothing more to do with it. */
  settled: boolean;
}

/** The server remembers a producer for 8 days; a retry after that could count twice. */
export const GIVE_UP_AFTER_MS = 7 * 24 * 3600 * 1000;

/** Of a batch that was not sent by this page. */
export function newBatch(sealed: SealedBatch, stored: boolean): Batch {
  return { ...sealed, attempts: 0, inFlight: false, stored, settled: false };
}

/** A random UUID, version 4. `crypto.randomUUID` is missing on plain HTTP pages, `crypto` itself in Node 18. */
export function newProducer(): string {
  const random = (): number => globalThis.crypto?.getRandomValues(new Uint8Array(1))[0] ?? Math.random() * 256;
  return "10000000-1000-4000-8000-100000000000".replace(/[018]/g, (digit) =>
    (+digit ^ (random() & (15 >> (+digit / 4)))).toString(16),
  );
}
