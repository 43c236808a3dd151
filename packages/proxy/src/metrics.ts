import type { Counter, Gauge, Metrics } from '@pantala/base';

/** What the proxy counts, under upstream's names where it has one. */
export interface ProxyMetrics {
  readonly requests: Counter;
  readonly failures: Counter;
  readonly shared: Counter;
  readonly direct: Counter;
  readonly running: Gauge;
  readonly tunnels: Gauge;
}

export function proxyMetrics(metrics: Metrics): ProxyMetrics {
  return {
    requests: metrics.counter('dragonfly_client_proxy_request_total', { help: 'Requests to the proxy' }),
    failures: metrics.counter('dragonfly_client_proxy_request_failure_total', {
      help: 'Requests to the proxy that it could not serve',
    }),
    shared: metrics.counter('dragonfly_client_proxy_request_via_dfdaemon_total', {
      help: 'Requests to the proxy that were answered from tasks',
    }),
    direct: metrics.counter('pantala_proxy_request_direct_total', {
      help: 'Requests to the proxy that were passed on to the origin',
    }),
    running: metrics.gauge('pantala_proxy_requests_running', { help: 'Requests to the proxy under way' }),
    tunnels: metrics.gauge('pantala_proxy_tunnels', { help: 'Blind tunnels through the proxy that are open' }),
  };
}
