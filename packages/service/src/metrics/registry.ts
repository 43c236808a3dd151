import type { Counter, Gauge, Histogram, Labels, MetricOptions, Metrics } from '@pantala/base';
import * as prometheus from 'prom-client';

/** Metrics that can be shown to Prometheus. Asking for a name again gives the same metric. */
export class MetricsRegistry implements Metrics {
  readonly #registry = new prometheus.Registry();
  readonly #counters = new Map<string, GatheringCounter>();

  /** @param options.process adds what Prometheus wants of every process (CPU seconds, memory, descriptors, event loop) */
  constructor(options: { readonly process: boolean }) {
    if (options.process) prometheus.collectDefaultMetrics({ register: this.#registry });
  }

  counter(name: string, options: MetricOptions): Counter {
    const known = this.#counters.get(name);
    if (known !== undefined) return known;
    const counter = new GatheringCounter(new prometheus.Counter({ ...this.#common(name, options) }));
    this.#counters.set(name, counter);
    return counter;
  }

  gauge(name: string, options: MetricOptions & { readonly collect?: () => number }): Gauge {
    const collect = options.collect;
    const gauge =
      (this.#registry.getSingleMetric(name) as prometheus.Gauge | undefined) ??
      new prometheus.Gauge({
        ...this.#common(name, options),
        ...(collect === undefined
          ? {}
          : {
              collect(this: prometheus.Gauge): void {
                this.set(collect());
              },
            }),
      });
    return {
      set: (value, labels) => (labels === undefined ? gauge.set(value) : gauge.set({ ...labels }, value)),
      add: (amount, labels) => (labels === undefined ? gauge.inc(amount) : gauge.inc({ ...labels }, amount)),
    };
  }

  histogram(name: string, options: MetricOptions & { readonly buckets: readonly number[] }): Histogram {
    const histogram =
      (this.#registry.getSingleMetric(name) as prometheus.Histogram | undefined) ??
      new prometheus.Histogram({ ...this.#common(name, options), buckets: [...options.buckets] });
    return {
      observe: (value: number, labels?: Labels) =>
        labels === undefined ? histogram.observe(value) : histogram.observe({ ...labels }, value),
    };
  }

  /** Everything in Prometheus' text format, with its content type. */
  async render(): Promise<{ readonly body: string; readonly contentType: string }> {
    for (const counter of this.#counters.values()) counter.tell();
    return { body: await this.#registry.metrics(), contentType: this.#registry.contentType };
  }

  #common(name: string, options: MetricOptions) {
    return { name, help: options.help, labelNames: [...(options.labels ?? [])], registers: [this.#registry] };
  }
}

/** Counts in numbers of its own until somebody looks: the library's checks of each step cost more than small answers. */
class GatheringCounter implements Counter {
  readonly #counter: prometheus.Counter;
  #plain = 0;
  /** By the values of its labels. */
  readonly #labelled = new Map<string, { readonly labels: Labels; amount: number }>();

  constructor(counter: prometheus.Counter) {
    this.#counter = counter;
  }

  add(amount = 1, labels?: Labels): void {
    if (labels === undefined) {
      this.#plain += amount;
      return;
    }
    let key = '';
    for (const name in labels) key += `${name}=${labels[name]}\n`;
    const gathered = this.#labelled.get(key);
    if (gathered === undefined) this.#labelled.set(key, { labels, amount });
    else gathered.amount += amount;
  }

  tell(): void {
    if (this.#plain > 0) this.#counter.inc(this.#plain);
    this.#plain = 0;
    for (const { labels, amount } of this.#labelled.values()) this.#counter.inc({ ...labels }, amount);
    this.#labelled.clear();
  }
}
