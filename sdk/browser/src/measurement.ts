import type { Kind } from "./client";

/** One checked call of record(). */
export interface Measurement {
  /** Whether it can be folded, and how; "histogram" for summaries too. */
  readonly kind: Kind | undefined;
  /** The metric's JSON up to its value: `{"name":"…","labels":{…}`, labels in order of their names. */
  readonly head: string;
  /** One increment or level, or any number of observations. */
  readonly values: readonly number[];
  /** Unix milliseconds; of a gauge, and of a metric of unknown kind, which may be one. */
  readonly timestamp: number | undefined;
}

/**
 * Checks the arguments of record(), for types do not bind callers that are plain JavaScript. Throws TypeError for
 * what the server would refuse, or what would spoil the sum that it is folded into.
 */
export function newMeasurement(
  name: unknown,
  value: unknown,
  labels: unknown = {},
  timestamp: unknown = Date.now(),
  kind?: Kind,
): Measurement {
  const several = Array.isArray(value);
  const values: number[] = several ? value : [value];
  const observed = kind === "histogram" || kind === "summary" || (several && !kind);
  const counted = observed || kind === "counter";
  check(
    name &&
      typeof name === "string" &&
      typeof labels === "object" &&
      values.length &&
      values.every(Number.isFinite) &&
      (observed || !several) &&
      (kind !== "counter" || values[0]! >= 0) &&
      (counted || Number.isFinite(timestamp)),
  );
  const head = `{"name":${json(name as string)}${labelsJson(labels ?? {})}`;
  return {
    kind: observed ? "histogram" : kind,
    head,
    values,
    timestamp: counted ? undefined : Math.floor(timestamp as number),
  };
}

function check(condition: unknown): void {
  if (!condition) throw new TypeError();
}

/** The server takes no half of a surrogate pair, as where an emoji was cut in two. (Node 18 has no isWellFormed().) */
function json(text: string): string {
  check(!/\p{Cs}/u.test(text));
  return JSON.stringify(text);
}

function labelsJson(labels: object): string {
  const pairs = Object.entries(labels)
    .filter(([, value]) => value !== undefined && value !== null)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([label, value]) => `${json(label)}:${json(`${value}`)}`);
  return pairs.length ? `,"labels":{${pairs}}` : "";
}
