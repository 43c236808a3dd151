import { randomUUID } from 'node:crypto';
import { createClient, pantalaV1 } from '@pantala/api';
import { type BlockRun, taskId } from '@pantala/base';
import {
  type Answer,
  type Ask,
  ask,
  Content,
  loopbackPlace,
  type Node,
  type Oddities,
  Origin,
  type Place,
  type Program,
  pantala,
  run,
  Scratch,
  Swarm,
  type SwarmOptions,
  until,
} from '@pantala/testkit';

/** Everything that is asked for, not only what fits into a quarter of an hour. */
export const FULL = process.env.PANTALA_FULL === '1';
export const MIB = 1024 * 1024;
/** Blocks of the store, the unit in which "no more than was asked for" is counted. */
export const BLOCK = 16 * 1024;

export interface StoredTask {
  readonly complete: boolean;
  readonly heldBytes: number;
  readonly contentLength: number;
  readonly sha256: string;
}

export interface GetResult {
  readonly bytes: number;
  readonly seconds: number;
  readonly originBytes: number;
  readonly peerBytes: number;
  readonly localBytes: number;
  readonly digest: string;
}

/** An origin and a swarm on loopback addresses. */
export class Stage implements AsyncDisposable {
  readonly origin: Origin;
  readonly swarm: Swarm;
  readonly scratch: Scratch;

  private constructor(origin: Origin, swarm: Swarm, scratch: Scratch) {
    this.origin = origin;
    this.swarm = swarm;
    this.scratch = scratch;
  }

  static async start(
    options: {
      readonly seeds?: number;
      /** How many, or where. */
      readonly peers?: number | readonly Place[];
      readonly manager?: boolean;
      readonly origin?: Origin;
    } & Pick<SwarmOptions, 'settings' | 'parent'> = {},
  ): Promise<Stage> {
    const origin = options.origin ?? (await Origin.start({ host: loopbackPlace().address }));
    const places = (count: number) => Array.from({ length: count }, loopbackPlace);
    const swarm = await Swarm.start({
      scheduler: loopbackPlace(),
      seeds: places(options.seeds ?? 1),
      peers: typeof options.peers === 'object' ? options.peers : places(options.peers ?? 2),
      ...(options.manager === true ? { manager: loopbackPlace() } : {}),
      ...(options.settings === undefined ? {} : { settings: options.settings }),
      ...(options.parent === undefined ? {} : { parent: options.parent }),
    });
    return new Stage(origin, swarm, Scratch.create('e2e'));
  }

  /** New content at a new path. */
  serve(length: number, oddities: Oddities = {}, headers: Readonly<Record<string, string>> = {}): Served {
    const path = `/${randomUUID()}`;
    const content = new Content(length, path);
    return { path, content, url: this.origin.serve(path, content, oddities, headers) };
  }

  /** New content under a blob's name, so that its sha256 is known from its URL. */
  serveBlob(length: number, oddities: Oddities = {}): Served {
    const content = new Content(length, randomUUID());
    const path = `/v2/e2e/blobs/sha256:${content.sha256}`;
    return { path, content, url: this.origin.serve(path, content, oddities) };
  }

  /** Through a node's proxy in forward mode. */
  fetch(node: Node, url: string, options: Ask = {}): Promise<Answer> {
    return ask(url, { proxy: node.proxy, deadline: 150_000, ...options });
  }

  /** `pantala get` at a node. */
  async get(node: Node, url: string, ...args: readonly string[]): Promise<GetResult & { readonly output: string }> {
    const output = this.scratch.join(randomUUID());
    const program = await this.startGet(node, url, output, ...args);
    const status = await program.exited;
    if (status.code !== 0) throw new Error(`pantala get: status ${status.code}\n${program.tail()}`);
    const line = program.stdout.trim().split('\n').at(-1) ?? '';
    return { ...(JSON.parse(line) as GetResult), output };
  }

  startGet(node: Node, url: string, output: string, ...args: readonly string[]): Promise<Program> {
    return pantala(['get', url, '-O', output, '--endpoint', node.socket, '--json', ...args], { name: 'pantala get' });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.swarm[Symbol.asyncDispose]();
    await this.origin[Symbol.asyncDispose]();
    await this.scratch[Symbol.asyncDispose]();
  }
}

export interface Served {
  readonly path: string;
  readonly content: Content;
  readonly url: string;
}

/** What a node's store holds of a task; undefined when it does not know it. */
export async function stored(
  node: Node,
  id: string,
  options: { readonly sha256?: boolean } = {},
): Promise<StoredTask | undefined> {
  using client = createClient(pantalaV1.LocalStore, { path: node.socket });
  try {
    const task = await client.statTask({ taskId: id, computeSha256: options.sha256 ?? false });
    return {
      complete: task.complete,
      heldBytes: Number(task.heldBytes),
      contentLength: Number(task.contentLength),
      sha256: task.sha256,
    };
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'not-found') return undefined;
    throw error;
  }
}

/** What `pantala task stat` says of a task that a node knows: how users look into a store. */
export async function shownTask(
  node: Node,
  identity: Parameters<typeof taskId>[0],
  ...args: readonly string[]
): Promise<StoredTask & { readonly held: readonly BlockRun[] }> {
  const command = ['task', 'stat', taskId(identity), '--endpoint', node.socket, '--json', ...args];
  await using program = await pantala(command, { name: 'pantala task stat' });
  const status = await program.exited;
  if (status.code !== 0) throw new Error(`pantala task stat: status ${status.code}\n${program.tail()}`);
  return JSON.parse(program.stdout) as StoredTask & { readonly held: readonly BlockRun[] };
}

/** Waits until a node holds the whole task, and returns the digest of what it holds. */
export async function wholeTask(node: Node, identity: Parameters<typeof taskId>[0]): Promise<string> {
  const id = taskId(identity);
  await until(async () => (await stored(node, id))?.complete, { what: `${node.name} holds all of ${identity.url}` });
  return (await stored(node, id, { sha256: true }))?.sha256 ?? '';
}

/** Requests of a single byte, by which each node learns the length and whether ranges work. */
const PROBES = 64;

/** How many copies of a content its origin handed out; nodes' probes of one byte are not counted. */
export function copies(stage: Stage, served: Served): number {
  return Math.max(0, stage.origin.count(served.path).bytes - PROBES) / Math.max(1, served.content.length);
}

/** Hex digest of a file. */
export async function fileSha256(path: string): Promise<string> {
  const { stdout } = await run('sha256sum', [path]);
  return stdout.split(' ')[0] ?? '';
}

/** Bytes of the blocks that a range touches, and of the probes. */
export function touched(start: number, end: number, length: number): number {
  const first = Math.floor(start / BLOCK) * BLOCK;
  return Math.min(length, Math.ceil(end / BLOCK) * BLOCK) - first + PROBES;
}
