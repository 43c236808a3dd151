import type { Counter, Histogram, Metrics } from '@pantala/base';

/** Counted under upstream's names. */
export interface OriginMetrics {
  readonly requests: Counter;
  readonly failures: Counter;
  /** Until the head of the answer, in milliseconds. */
  readonly duration: Histogram;
}

/** Upstream's: 1 ms doubled 23 times. */
const BUCKETS: readonly number[] = Array.from({ length: 24 }, (_, i) => 2 ** i);

export function originMetrics(metrics: Metrics): OriginMetrics {
  const labels = ['scheme', 'method'];
  return {
    requests: metrics.counter('dragonfly_client_backend_request_total', { help: 'Requests to origins.', labels }),
    failures: metrics.counter('dragonfly_client_backend_request_failure_total', {
      help: 'Requests to origins that got no answer.',
      labels,
    }),
    duration: metrics.histogram('dragonfly_client_backend_request_duration_milliseconds', {
      help: 'Time until the head of the answer of an origin.',
      labels,
      buckets: BUCKETS,
    }),
  };
}
