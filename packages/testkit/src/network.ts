import { existsSync, readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { PantalaError } from '@pantala/base';
import { type Place, Program, type RunResult, run } from './program.ts';

/** Anything with this prefix whose owner (the process id in the name) is dead may be removed. */
const PREFIX = 'pantala-';
/** Bytes: at least rate / HZ, and one full segment offload even though they are switched off. */
const MINIMUM_BURST = 65_536;
const KERNEL_HZ = 250;

export interface Link {
  /** Mbit/s each way; undefined leaves the link as fast as the machine. */
  readonly megabits?: number;
}

/** One machine of a made-up network: a namespace with an address of its own. */
export class Namespace implements Place {
  readonly name: string;
  readonly address: string;
  readonly localhost = '127.0.0.1';

  constructor(name: string, address: string) {
    this.name = name;
    this.address = address;
  }

  wrap(command: string, args: readonly string[]): readonly [string, readonly string[]] {
    // `ip netns exec` gives a mount namespace too: mounts of a killed containerd go with it.
    return ['ip', ['netns', 'exec', this.name, command, ...args]];
  }
}

/**
 * A bridge and namespaces on it, each by a veth pair with a token bucket filter on both ends (egress of the namespace
 * is its uplink, egress of the bridge's port its downlink) and offloads off, else the filters see 64 KiB segments.
 */
export class Network implements AsyncDisposable {
  readonly namespaces: Namespace[] = [];
  readonly #bridge: string;
  readonly #id: string;
  readonly #subnet: string;

  private constructor(id: string, bridge: string, subnet: string) {
    this.#id = id;
    this.#bridge = bridge;
    this.#subnet = subnet;
  }

  /** Why namespaces cannot be had here; undefined when they can. */
  static async impossible(): Promise<string | undefined> {
    if (process.getuid?.() !== 0) return 'not root';
    const probe = `${PREFIX}${process.pid}-probe`;
    const missing = ['ip', 'tc', 'ethtool'];
    for (const command of missing) {
      const { code } = await run(command, ['--version'], { check: false });
      if (code === 127) return `${command} is not installed`;
    }
    const made = await run('ip', ['netns', 'add', probe], { check: false });
    if (made.code !== 0) return made.stderr.trim();
    await run('ip', ['netns', 'del', probe], { check: false });
    return undefined;
  }

  static async create(): Promise<Network> {
    await removeLeftovers();
    const number = created++;
    const id = `${PREFIX}${process.pid}-${number}`;
    const bridge = `pb${process.pid.toString(36)}x${number}`;
    const subnet = freeSubnet();
    const network = new Network(id, bridge, subnet);
    try {
      await run('ip', ['link', 'add', bridge, 'type', 'bridge']);
      await run('ip', ['addr', 'add', `${subnet}.1/24`, 'dev', bridge]);
      await run('ip', ['link', 'set', bridge, 'up']);
    } catch (error) {
      await network[Symbol.asyncDispose]();
      throw error;
    }
    return network;
  }

  /** The host's own address on the bridge. */
  get gateway(): string {
    return `${this.#subnet}.1`;
  }

  async addNode(link: Link = {}): Promise<Namespace> {
    const number = this.namespaces.length;
    const namespace = new Namespace(`${this.#id}-${number}`, `${this.#subnet}.${number + 2}`);
    const outer = `${this.#bridge}v${number}`;
    this.namespaces.push(namespace);
    await run('ip', ['netns', 'add', namespace.name]);
    const inside = (...args: readonly string[]): Promise<RunResult> => run('ip', ['-n', namespace.name, ...args]);
    await run('ip', ['link', 'add', outer, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace.name]);
    await run('ip', ['link', 'set', outer, 'master', this.#bridge, 'up']);
    await inside('addr', 'add', `${namespace.address}/24`, 'dev', 'eth0');
    await inside('link', 'set', 'eth0', 'up');
    await inside('link', 'set', 'lo', 'up');
    await inside('route', 'add', 'default', 'via', this.gateway);
    const offloads = ['tso', 'off', 'gso', 'off', 'gro', 'off'];
    if (link.megabits !== undefined) {
      await run('ethtool', ['-K', outer, ...offloads]);
      await run('ethtool', ['-K', 'eth0', ...offloads], { place: namespace });
      await run('tc', ['qdisc', 'add', 'dev', outer, ...shape(link.megabits)]);
      await run('tc', ['qdisc', 'add', 'dev', 'eth0', ...shape(link.megabits)], { place: namespace });
    }
    return namespace;
  }

  /** Cuts or mends a node's cable. */
  async setCable(namespace: Namespace, connected: boolean): Promise<void> {
    await run('ip', ['link', 'set', this.#port(namespace), connected ? 'up' : 'down']);
  }

  /** Bytes that a node sent and received so far, headers included, by the kernel's count at the bridge. */
  count(namespace: Namespace): { readonly sent: number; readonly received: number } {
    const folder = `/sys/class/net/${this.#port(namespace)}/statistics`;
    // What the bridge's port receives is what the node sent.
    return {
      sent: Number(readFileSync(`${folder}/rx_bytes`, 'utf8')),
      received: Number(readFileSync(`${folder}/tx_bytes`, 'utf8')),
    };
  }

  #port(namespace: Namespace): string {
    return `${this.#bridge}v${this.namespaces.indexOf(namespace)}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const namespace of this.namespaces) await removeNamespace(namespace.name);
    this.namespaces.length = 0;
    await run('ip', ['link', 'del', this.#bridge], { check: false });
  }
}

/** What a link carries from one node to another, in Mbit/s of payload, by one plain TCP stream. */
export async function calibrate(from: Namespace, to: Namespace, seconds = 2): Promise<number> {
  const receiver = `
    let first = 0, bytes = 0;
    require('node:net').createServer((s) => {
      s.on('data', (b) => { first ||= performance.now(); bytes += b.length; });
      s.on('end', () => { console.log('rate ' + bytes * 8 / 1e3 / (performance.now() - first)); process.exit(); });
    }).listen(7, '${to.address}', () => console.log('listening'));`;
  const sender = `
    const s = require('node:net').connect(7, '${to.address}'); const b = Buffer.alloc(65536);
    const until = performance.now() + ${seconds * 1000};
    const more = () => { while (performance.now() < until) if (!s.write(b)) return s.once('drain', more); s.end(); };
    s.on('connect', more);`;
  await using sink = await Program.start(process.execPath, ['-e', receiver], { place: to, ready: /listening/ });
  await run(process.execPath, ['-e', sender], { place: from });
  await sink.exited;
  const rate = /rate ([\d.]+)/.exec(sink.stdout)?.[1];
  if (rate === undefined) throw new PantalaError('internal', `the link could not be measured: ${sink.tail()}`);
  return Number(rate);
}

let created = 0;

function shape(megabits: number): readonly string[] {
  const burst = Math.max(MINIMUM_BURST, Math.ceil((megabits * 1e6) / 8 / KERNEL_HZ));
  return ['root', 'tbf', 'rate', `${megabits}mbit`, 'burst', `${burst}`, 'latency', '50ms'];
}

function freeSubnet(): string {
  const taken = new Set(
    Object.values(networkInterfaces())
      .flat()
      .map((entry) => entry?.address.split('.').slice(0, 3).join('.')),
  );
  const start = process.pid % 250;
  for (let step = 0; step < 250; step++) {
    const subnet = `10.213.${(start + step) % 250}`;
    if (!taken.has(subnet)) return subnet;
  }
  throw new PantalaError('resource-exhausted', 'every network 10.213.0.0/24 to 10.213.249.0/24 is taken');
}

/** Namespaces and bridges of runs that were killed. */
async function removeLeftovers(): Promise<void> {
  const { stdout } = await run('ip', ['netns', 'list'], { check: false });
  for (const line of stdout.split('\n')) {
    const name = line.split(' ')[0] ?? '';
    const owner = new RegExp(`^${PREFIX}(\\d+)-`).exec(name)?.[1];
    if (owner !== undefined && !existsSync(`/proc/${owner}`)) await removeNamespace(name);
  }
  for (const name of Object.keys(networkInterfaces())) {
    const owner = /^pb([0-9a-z]+)x\d+$/.exec(name)?.[1];
    if (owner !== undefined && !existsSync(`/proc/${Number.parseInt(owner, 36)}`)) {
      await run('ip', ['link', 'del', name], { check: false });
    }
  }
}

async function removeNamespace(name: string): Promise<void> {
  const { stdout } = await run('ip', ['netns', 'pids', name], { check: false });
  for (const pid of stdout.split('\n').filter(Boolean)) {
    try {
      process.kill(Number(pid), 'SIGKILL');
    } catch {
      // It has just ended by itself.
    }
  }
  await run('ip', ['netns', 'del', name], { check: false });
}
