import type { DropReason, Options, Stats } from "./client";

/** Counts what became of every record, and keeps this runtime's own faults away from the page. */
export interface Tally {
  readonly counts: Omit<Stats, "queuedBatches">;
  drop(reason: DropReason, records: number): void;
  /** Says once per page and code what the developer has to mend. */
  warnOnce(code: string | number, message?: string): void;
  /** Runs what a timer, an event or a caller started, or what uses storage: nothing is thrown into the page. */
  guard(run: () => void, counter?: "faults" | "storageErrors"): void;
  /** A guarded timer, which does not keep a Node process alive. */
  later(run: () => void, delayMs: number): Timer;
}

export type Timer = ReturnType<typeof setTimeout>;

export function newTally(onDrop: Options["onDrop"]): Tally {
  const counts: Tally["counts"] = {
    recorded: 0,
    adopted: 0,
    accepted: 0,
    rejected: 0,
    dropped: {},
    retries: 0,
    storageErrors: 0,
    faults: 0,
  };
  const warned: Record<string, boolean> = {};

  const guard: Tally["guard"] = (run, counter = "faults") => {
    try {
      run();
    } catch {
      counts[counter]++;
    }
  };

  return {
    counts,
    guard,
    drop(reason, records) {
      counts.dropped[reason] = (counts.dropped[reason] ?? 0) + records;
      guard(() => onDrop?.(reason, records));
    },
    warnOnce(code, message) {
      if (!warned[code]) console.warn(`pulsegate: ${code}: ${message}`);
      warned[code] = true;
    },
    later(run, delayMs) {
      const timer = setTimeout(() => guard(run), delayMs);
      (timer as { unref?: () => void }).unref?.();
      return timer;
    },
  };
}
