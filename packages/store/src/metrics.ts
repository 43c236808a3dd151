import type { Counter, Metrics } from '@pantala/base';

export interface StoreMetrics {
  /** By reason: `age`, `disk`. */
  readonly evicted: Counter;
  readonly voided: Counter;
  /** Blocks that did not match their digest after a power loss or a change from outside. */
  readonly damagedBlocks: Counter;
}

export function storeMetrics(
  metrics: Metrics,
  usage: () => { readonly tasks: number; readonly bytes: number },
): StoreMetrics {
  metrics.gauge('pantala_store_tasks', { help: 'Tasks in the piece store', collect: () => usage().tasks });
  metrics.gauge('pantala_store_bytes', { help: 'Bytes of blocks in the piece store', collect: () => usage().bytes });
  return {
    evicted: metrics.counter('pantala_store_evicted_tasks_total', { help: 'Tasks evicted', labels: ['reason'] }),
    voided: metrics.counter('pantala_store_voided_tasks_total', { help: 'Tasks whose content was dropped as wrong' }),
    damagedBlocks: metrics.counter('pantala_store_damaged_blocks_total', {
      help: 'Blocks dropped because they did not match their digest on disk',
    }),
  };
}
