import type { Batch } from "./batch";
import { MAX_OBSERVATIONS, OVERHEAD } from "./limits";
import type { Measurement } from "./measurement";

/**
 * The metrics of a batch that is not sealed yet. Increments of one series add up, observations gather in an array,
 * of a gauge's levels the newest stays; a metric of unknown kind is kept as it came.
 */
export interface OpenBatch {
  /** Metrics, as the server counts them. */
  metricCount(): number;
  /** Of the metrics' JSON, roughly. */
  characters(): number;
  /** Adds one of the measurement's values. `records`: 1, or 0 for the further values of the same call of record(). */
  add(measurement: Measurement, value: number, records: number): void;
  /** The batch in the wire form of http-api.md, "Ingestion". */
  seal(producer: string, sequence: number, floor: number): Batch;
}

interface Metric {
  readonly head: string;
  /** More than one only of a histogram. */
  values: number[];
  timestamp: number | undefined;
  /** Calls of record() that went into it. */
  records: number;
}

export function newOpenBatch(): OpenBatch {
  const metrics: Metric[] = [];
  const foldable = new Map<string, Metric>();
  let characters = 0;

  return {
    metricCount: () => metrics.length,
    characters: () => characters,
    add(measurement, value, records) {
      const { kind, head, timestamp } = measurement;
      const series = kind + head;
      let metric = kind && foldable.get(series);
      if (!(metric && fold(metric, measurement, value))) {
        metric = { head, values: [value], timestamp, records: 0 };
        metrics.push(metric);
        foldable.set(series, metric);
        characters += head.length + OVERHEAD;
      }
      characters += `${value},`.length;
      metric.records += records;
    },
    seal(producer, sequence, floor) {
      const payload = `{"producer":"${producer}","sequence":${sequence},"floor":${floor},"metrics":[${metrics.map(json)}]}`;
      const recordsByMetric = metrics.map(({ records }) => records);
      const records = recordsByMetric.reduce((sum, count) => sum + count, 0);
      const sealedAt = Date.now();
      return { producer, sequence, sealedAt, records, payload, recordsByMetric, attempts: 0, stored: "" };
    },
  };
}

/** Whether the metric could take the value in. */
function fold(metric: Metric, { kind, timestamp }: Measurement, value: number): boolean {
  const { values } = metric;
  if (kind === "histogram") return values.length < MAX_OBSERVATIONS && values.push(value) > 0;
  if (kind === "counter") {
    const sum = values[0]! + value;
    if (sum === Infinity) return false;
    values[0] = sum;
  } else if (timestamp! >= metric.timestamp!) {
    values[0] = value;
    metric.timestamp = timestamp;
  }
  return true;
}

function json({ head, values, timestamp }: Metric): string {
  const value = values.length > 1 ? `[${values}]` : values;
  return `${head},"value":${value}${timestamp === undefined ? "" : `,"timestamp":${timestamp}`}}`;
}
