import { createClient, formatRpcAddress, type RpcClient, type RpcTls, schedulerV2 } from '@pantala/api';
import { HashRing, PantalaError } from '@pantala/base';
import type { Address } from './config/index.ts';

/** Milliseconds for one question to a scheduler, as upstream's clients have it. */
const CALL_TIMEOUT = 10_000;

/** Characters of a task's id that decide which scheduler it belongs to (upstream's rule). */
const KEY_LENGTH = 5;

type SchedulerClient = RpcClient<typeof schedulerV2.Scheduler>;

/** Single questions to the scheduler of a task, on behalf of callers of this peer. */
export class SchedulerCalls implements Disposable {
  readonly #hostId: string;
  readonly #tls: RpcTls | undefined;
  readonly #clients = new Map<string, SchedulerClient>();

  constructor(hostId: string, tls: RpcTls | undefined) {
    this.#hostId = hostId;
    this.#tls = tls;
  }

  /** Replaces the list of schedulers. */
  set(addresses: readonly Address[]): void {
    const wanted = new Map(addresses.map((address) => [formatRpcAddress(address), address]));
    for (const [name, client] of this.#clients) {
      if (wanted.has(name)) continue;
      this.#clients.delete(name);
      client[Symbol.dispose]();
    }
    for (const [name, address] of wanted) {
      if (!this.#clients.has(name)) {
        const options = { deadline: CALL_TIMEOUT, tls: this.#tls };
        this.#clients.set(name, createClient(schedulerV2.Scheduler, address, options));
      }
    }
  }

  /** What the scheduler knows of a task. @throws `unavailable` without one; `not-found` */
  async statTask(taskId: string, signal: AbortSignal) {
    return await this.#of(taskId).statTask({ hostId: this.#hostId, taskId }, { signal });
  }

  /** Tells the scheduler that this host no longer has a task. @throws as `statTask` */
  async deleteTask(taskId: string, signal: AbortSignal): Promise<void> {
    await this.#of(taskId).deleteTask({ hostId: this.#hostId, taskId }, { signal });
  }

  /** Takes this host out of every scheduler that answers. */
  async deleteHost(signal: AbortSignal): Promise<void> {
    const calls = [...this.#clients.values()].map((client) => client.deleteHost({ hostId: this.#hostId }, { signal }));
    await Promise.allSettled(calls);
  }

  [Symbol.dispose](): void {
    this.set([]);
  }

  #of(taskId: string): SchedulerClient {
    const name = new HashRing([...this.#clients.keys()]).pick(taskId.slice(0, KEY_LENGTH));
    const client = name === undefined ? undefined : this.#clients.get(name);
    if (client === undefined) throw new PantalaError('unavailable', 'this peer knows no scheduler');
    return client;
  }
}
