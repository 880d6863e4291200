// In a module of their own: so the bundler writes each number where it is used, and no name for it.

export const DAY_MS = 86_400_000;
/** Of stored batches: a day later than a page of the queue would have given them up. */
export const ABANDONED_AFTER_DAYS = 8;
export const REQUEST_TIMEOUT_MS = 30_000;
/** An answer that asks for more patience than this is not believed. */
export const MAX_RETRY_AFTER_MS = 3_600_000;
/** A wrong key may be mended, but not within seconds. */
export const REFUSED_KEY_DELAY_MS = 300_000;
/**
 * Browsers allow 64 KiB of UTF-8 for all requests that may outlive their page together. Here UTF-16 units are counted, the
 * same for ASCII: what is refused because it has more bytes is sent again.
 */
export const KEEPALIVE_BYTES = 60_000;
/** In UTF-16 units: two may outlive their page. */
export const MAX_BATCH_BYTES = 30_000;
/** Batches. */
export const SENT_WHEN_HIDDEN = 8;
/** The contract's limit on observations in one metric. */
export const MAX_OBSERVATIONS = 1000;
/** The characters of a metric's value and timestamp, without the digits of the value. */
export const OVERHEAD = 40;
/** The server takes no batch further from its producer's floor. */
export const MAX_SEQUENCE_SPAN = 4096;
export const ADOPT_INTERVAL_MS = 30_000;
/** Of flushIntervalMs while the server is away. */
export const MAX_SLOWDOWN = 30;
