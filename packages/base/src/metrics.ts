/** Labels of one sample. */
export type Labels = Readonly<Record<string, string>>;

export interface Counter {
  add(amount?: number, labels?: Labels): void;
}

export interface Gauge {
  set(value: number, labels?: Labels): void;
  add(amount: number, labels?: Labels): void;
}

export interface Histogram {
  observe(value: number, labels?: Labels): void;
}

export interface MetricOptions {
  readonly help: string;
  readonly labels?: readonly string[];
}

/** What Pantala's packages count with; programs decide how it is exported. Names are complete (with prefix). */
export interface Metrics {
  counter(name: string, options: MetricOptions): Counter;
  gauge(name: string, options: MetricOptions & { readonly collect?: () => number }): Gauge;
  histogram(name: string, options: MetricOptions & { readonly buckets: readonly number[] }): Histogram;
}

const nothing = { add() {}, set() {}, observe() {} };

export const noMetrics: Metrics = { counter: () => nothing, gauge: () => nothing, histogram: () => nothing };
