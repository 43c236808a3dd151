import { noMetrics, silentLogger } from '@pantala/base';
import { startScheduler } from '@pantala/scheduler';
import type { ServerAddress } from '@pantala/swarm';
import { Content, Origin } from '@pantala/testkit';
import { Node } from './node.ts';

export const MEBI = 1024 * 1024;

/** A scheduler on a free port, or on one that an earlier one had. */
export async function scheduler(port = 0): Promise<AsyncDisposable & { readonly at: ServerAddress }> {
  const running = await startScheduler(
    { listen: { host: '127.0.0.1', port } },
    { logger: silentLogger, metrics: noMetrics },
  );
  const { address } = running;
  if ('path' in address) throw new Error('a TCP address was expected');
  return { at: address, [Symbol.asyncDispose]: () => running[Symbol.asyncDispose]() };
}

/** An origin with one blob, a scheduler, and a seed. */
export class Cluster implements AsyncDisposable {
  readonly origin: Origin;
  readonly content: Content;
  readonly url: string;
  readonly scheduler: Awaited<ReturnType<typeof scheduler>>;
  readonly seed: Node;
  readonly #resources: AsyncDisposableStack;

  private constructor(
    origin: Origin,
    content: Content,
    url: string,
    sched: Awaited<ReturnType<typeof scheduler>>,
    seed: Node,
    resources: AsyncDisposableStack,
  ) {
    this.origin = origin;
    this.content = content;
    this.url = url;
    this.scheduler = sched;
    this.seed = seed;
    this.#resources = resources;
  }

  static async start(name: string, length: number, bytesPerSecond?: number): Promise<Cluster> {
    await using resources = new AsyncDisposableStack();
    const origin = resources.use(await Origin.start({ host: '127.0.0.1' }));
    const content = new Content(length, name);
    const oddities = bytesPerSecond === undefined ? {} : { bytesPerSecond };
    const url = origin.serve(`/v2/x/blobs/sha256:${content.sha256}`, content, oddities);
    const sched = resources.use(await scheduler());
    const seed = resources.use(await Node.start({ name: `${name}-s`, seed: true, schedulers: [sched.at] }));
    return new Cluster(origin, content, url, sched, seed, resources.move());
  }

  /** Bytes that the origin gave. */
  get given(): number {
    return this.origin.count(new URL(this.url).pathname).bytes;
  }

  /** A peer that goes with the cluster. */
  async peer(name: string): Promise<Node> {
    return this.#resources.use(await Node.start({ name, schedulers: [this.scheduler.at] }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources.disposeAsync();
  }
}
