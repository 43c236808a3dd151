import type { Counter, Gauge, Histogram, Labels, MetricOptions, Metrics } from '@pantala/base';
import * as prometheus from 'prom-client';

/** Metrics that can be shown to Prometheus. Asking for a name again gives the same metric. */
export class MetricsRegistry implements Metrics {
  readonly #registry = new prometheus.Registry();

  /** @param options.process adds what Prometheus wants of every process (CPU seconds, memory, descriptors, event loop) */
  constructor(options: { readonly process: boolean }) {
    if (options.process) prometheus.collectDefaultMetrics({ register: this.#registry });
  }

  counter(name: string, options: MetricOptions): Counter {
    const counter =
      (this.#registry.getSingleMetric(name) as prometheus.Counter | undefined) ??
      new prometheus.Counter({ ...this.#common(name, options) });
    return {
      add: (amount = 1, labels) => (labels === undefined ? counter.inc(amount) : counter.inc({ ...labels }, amount)),
    };
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
    return { body: await this.#registry.metrics(), contentType: this.#registry.contentType };
  }

  #common(name: string, options: MetricOptions) {
    return { name, help: options.help, labelNames: [...(options.labels ?? [])], registers: [this.#registry] };
  }
}
