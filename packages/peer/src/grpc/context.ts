import { type HostIdentity, isTaskId, PantalaError } from '@pantala/base';
import type { StoredTask, TaskStore } from '@pantala/store';
import type { Swarm } from '@pantala/swarm';
import type { HostMeter } from '../host/facts.ts';
import type { ServiceMetrics } from '../metrics.ts';
import type { SchedulerCalls } from '../scheduler-calls.ts';

/** What the gRPC services of a peer work with. */
export interface ServiceContext {
  readonly identity: HostIdentity;
  readonly hostId: string;
  /** Port of the TCP piece protocol. */
  readonly piecePort: number;
  /** Nothing is given to other peers. */
  readonly unshared: boolean;
  readonly store: TaskStore;
  /** There once every port is bound: schedulers are told the ports. */
  readonly swarm: Promise<Swarm>;
  readonly schedulers: SchedulerCalls;
  readonly meter: HostMeter;
  readonly metrics: ServiceMetrics;
}

/** @throws `not-found` */
export function heldTask(store: TaskStore, taskId: string): StoredTask {
  const task = isTaskId(taskId) ? store.get(taskId) : undefined;
  if (task === undefined) throw new PantalaError('not-found', `task ${taskId.slice(0, 64)} is not held here`);
  return task;
}

/** A task that other peers may have. @throws `not-found` */
export function sharedTask({ store, unshared }: ServiceContext, taskId: string): StoredTask {
  if (unshared) throw new PantalaError('not-found', 'this peer shares nothing');
  return heldTask(store, taskId);
}

/** Forgets a task here and tells the schedulers. @throws `not-found` */
export async function removeTask(context: ServiceContext, taskId: string): Promise<void> {
  heldTask(context.store, taskId);
  await context.store.remove(taskId);
  (await context.swarm).changed(taskId);
}
