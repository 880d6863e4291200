import { newRecorder, type Recorder } from "./recorder";

/** A metric's type, where the caller knows it: it decides what may be folded before it is sent. */
export type Kind = "counter" | "gauge" | "histogram" | "summary";

/** A label that is undefined is left out. */
export type Labels = Record<string, string | undefined>;

export type DropReason =
  /** A wrong type, a value that is not finite, a negative increment. */
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
  /** 30 000, which is also the most: so that two batches may outlive their page. */
  maxBatchBytes?: number;
  /** 1 000 000; the oldest batches are dropped, and counted. */
  maxQueueBytes?: number;
  /** The delay before the first retry, doubled by each further one, half of it at random: 1000. */
  retryDelayMs?: number;
  /** 60 000. */
  maxRetryDelayMs?: number;
  /** Pages of one origin that give the same name deliver each other's batches: the key. */
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

/** Sends metrics to Pulsegate. No method throws, none waits for the network except those that return a promise. */
export class Client {
  readonly #recorder: Recorder;

  constructor(options: Options) {
    this.#recorder = newRecorder(options);
  }

  get stats(): Stats {
    return this.#recorder.stats();
  }

  /**
   * Records an increment, a level, or one or more observations.
   * `timestamp`: Unix milliseconds, of gauges only; now where it is missing.
   */
  record(
    ...call: [name: string, value: number | number[], labels?: Labels, timestamp?: number | undefined, kind?: Kind]
  ): void {
    this.#recorder.record(...call);
  }

  /** Sends what is recorded. True once all of it is settled: accepted, rejected or counted as dropped. */
  flush(timeoutMs?: number): Promise<boolean> {
    return this.#recorder.flush(timeoutMs);
  }

  /** Flushes and ends. What storage holds by then is left to the origin's next page. */
  close(timeoutMs?: number): Promise<void> {
    return this.#recorder.close(timeoutMs);
  }
}

/**
 * For pages whose script changes apart from them: a method that a client does not have, because its metric was deleted,
 * or is newer than the browser's copy of the script, is counted as dropped from now on, instead of throwing.
 */
export function tolerate(): void {
  const get = (known: Record<string, unknown>, name: string): unknown => {
    // Symbols have no length.
    if (name.length && !(name in known)) {
      console.warn(`pulsegate: ${name}()?`);
      known[name] = function (this: { record(): void }) {
        this.record(); // without a name or value, which makes it an invalid one
      };
    }
    return known[name];
  };
  // Whoever awaits a client looks whether it is a promise.
  Object.setPrototypeOf(Client.prototype, new Proxy({ then: undefined }, { get }));
}
