import { newRecorder } from "./recorder";

/** A metric's type, where the caller knows it: it decides what may be folded before it is sent. */
export type Kind = "counter" | "gauge" | "histogram" | "summary";

/** A label that is undefined is left out. */
export type Labels = Record<string, string | undefined>;

export type DropReason =
  /** A wrong type, a value that is not finite, a negative increment, half a surrogate pair. */
  | "invalid"
  /** More than a batch may have, or than the server takes. */
  | "too_large"
  /** The queue was full, and these were the oldest. */
  | "queue_full"
  /** Seven days without an answer. */
  | "expired"
  /** The server no longer knows which of the producer's batches it has seen. */
  | "out_of_window"
  /** Recorded after close(), or not delivered by then and without storage. */
  | "closed";

export interface Options {
  /** The gateway's address, such as "https://metrics.example.com". */
  endpoint: string;
  /** A publishable key (pk_…). */
  key: string;
  /** How long records gather in a batch: 1000. */
  flushIntervalMs?: number;
  /** 100, which is also the most that the server takes. */
  maxBatchMetrics?: number;
  /** In UTF-16 units, which are bytes of ASCII. 30 000, which is also the most: so that two batches may outlive their page. */
  maxBatchBytes?: number;
  /** 1 000 000; the oldest batches are dropped, and counted. */
  maxQueueBytes?: number;
  /** The delay before the first retry, doubled by each further one, half of it at random: 1000. */
  retryDelayMs?: number;
  /** 60 000. */
  maxRetryDelayMs?: number;
  /** Pages of one origin that give the same name deliver each other's batches, and what the key's queue has: the key. */
  queue?: string;
  /** Where the queue survives a reload: localStorage in a page. null: in memory only. */
  storage?: Storage | null;
  /** Called for what will not be delivered. */
  onDrop?: (reason: DropReason, records: number) => void;
}

/** In calls of record(). recorded + adopted = accepted + rejected + dropped + what is still on its way. */
export interface Stats {
  recorded: number;
  /** Taken over from pages that are gone, less what was left to other pages. */
  adopted: number;
  accepted: number;
  rejected: number;
  dropped: Partial<Record<DropReason, number>>;
  /** Sealed batches that are not settled. */
  queuedBatches: number;
  retries: number;
  /** Failures of storage; what it did not take is kept in memory. */
  storageErrors: number;
  /** Errors of this runtime itself. */
  faults: number;
}

/**
 * Sends metrics to Pulsegate. No method throws, none waits for the network except those that return a promise, and each
 * may be called apart from its client.
 */
export class Client {
  declare readonly stats: Stats;
  /**
   * Records an increment, a level, or one or more observations.
   * `timestamp`: Unix milliseconds, of gauges only; now where it is missing.
   */
  declare readonly record: (
    ...call: [name: string, value: number | number[], labels?: Labels, timestamp?: number | undefined, kind?: Kind]
  ) => void;
  /** Sends what is recorded. True once all of it is settled: accepted, rejected or counted as dropped. */
  declare readonly flush: (timeoutMs?: number) => Promise<boolean>;
  /** Flushes and ends. What storage holds by then is left to the origin's next page. */
  declare readonly close: (timeoutMs?: number) => Promise<void>;

  constructor(options: Options) {
    // The recorder becomes the client: closures need no `this`, and no second set of methods.
    return Object.setPrototypeOf(newRecorder(options), new.target.prototype);
  }
}

/**
 * For pages whose script changes apart from them: a method that a client does not have, because its metric was deleted,
 * or is newer than the browser's copy of the script, is counted as dropped from now on, instead of throwing.
 */
export function tolerate(): void {
  const warned: Record<string, boolean> = {};
  const get = (known: Record<string, unknown>, name: string, client: { record(): void }): unknown => {
    // Symbols have no length.
    if (!name.length || name in known) return known[name];
    if (!warned[name]) console.warn(`pulsegate: ${name}()?`);
    warned[name] = true;
    return () => client.record(); // without a name or value, which makes it an invalid one
  };
  // Whoever awaits a client looks whether it is a promise, and JSON.stringify() whether it knows its own JSON.
  Object.setPrototypeOf(Client.prototype, new Proxy({ then: undefined, toJSON: undefined }, { get }));
}
