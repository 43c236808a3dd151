import type { Counter, Gauge, Metrics } from '@pantala/base';

/** Counted under upstream's names, so that existing dashboards go on working. */
export interface UploadMetrics {
  /** Bytes of content sent to other peers. */
  readonly traffic: Counter;
  /** Requests for pieces and ranges that are being answered. */
  readonly uploads: Gauge;
  readonly connections: Gauge;
  /** Requests that ended with an error, by the error's code. */
  readonly failures: Counter;
}

export function uploadMetrics(metrics: Metrics): UploadMetrics {
  return {
    traffic: metrics.counter('dragonfly_client_upload_traffic', { help: 'Bytes of content sent to other peers.' }),
    uploads: metrics.gauge('dragonfly_client_concurrent_upload_piece_total', {
      help: 'Pieces and ranges that are being sent to other peers.',
    }),
    connections: metrics.gauge('pantala_upload_connections', { help: 'Connections of other peers to the piece port.' }),
    failures: metrics.counter('pantala_upload_failures_total', {
      help: 'Requests of other peers that ended with an error.',
      labels: ['code'],
    }),
  };
}
