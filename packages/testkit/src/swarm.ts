import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ask } from './client.ts';
import { type Place, Program, type Usage } from './program.ts';
import { Scratch } from './scratch.ts';
import { accepts } from './wait.ts';

/** A part of a configuration file. */
export interface Settings {
  readonly [key: string]: string | number | boolean | Settings | readonly (Settings | string)[];
}

/** Bytes that a node got, by its own metrics. */
export interface NodeTraffic {
  readonly origin: number;
  readonly peers: number;
  /** Held before they were asked for. */
  readonly local: number;
}

/** The line "peer task done" of a log. */
export interface DoneLine {
  readonly level: string;
  readonly ts: string;
  readonly caller: string;
  readonly msg: string;
  readonly peer: string;
  readonly task: string;
  readonly component: string;
  readonly trace: string;
}

export const ROOT = join(import.meta.dirname, '..', '..', '..');
const MAIN = join(ROOT, 'packages', 'cli', 'src', 'main.ts');
const PORTS = { grpc: 4000, proxy: 4001, metrics: 4002, health: 4003, stats: 4004, pieces: 4005, scheduler: 8002 };
const MANAGER_PORT = 65_003;

/** The command line of a command of Pantala, for what is started by others. */
export function pantalaCommand(...args: readonly string[]): readonly [string, ...string[]] {
  return [process.execPath, '--disable-warning=ExperimentalWarning', MAIN, ...args];
}

/** Starts the pantala command as `./pantala` does, without its set-up. */
export function pantala(args: readonly string[], options: Parameters<typeof Program.start>[2] = {}): Promise<Program> {
  const [node, ...rest] = pantalaCommand(...args);
  return Program.start(node, rest, {
    ...options,
    name: options.name ?? `pantala ${args[0] ?? ''}`,
    env: { NODE_COMPILE_CACHE: join(ROOT, 'node_modules', '.cache', 'compile'), ...options.env },
  });
}

/** A role of Pantala with its folder; it may be killed and started again with what it holds. */
export class Role implements AsyncDisposable {
  readonly name: string;
  readonly place: Place;
  readonly folder: string;
  readonly #args: readonly string[];
  readonly #ready: () => Promise<boolean>;
  #program: Program | undefined;

  constructor(name: string, place: Place, folder: string, args: readonly string[], ready: () => Promise<boolean>) {
    this.name = name;
    this.place = place;
    this.folder = folder;
    this.#args = args;
    this.#ready = ready;
  }

  async start(): Promise<void> {
    this.#program = await pantala(this.#args, { name: this.name, place: this.place, ready: this.#ready });
  }

  get program(): Program {
    if (this.#program === undefined) throw new Error(`${this.name} was not started`);
    return this.#program;
  }

  usage(): Usage {
    return this.program.usage();
  }

  /** As a crash looks. */
  async kill(): Promise<void> {
    await this.program.kill();
  }

  /** As an orderly end looks. */
  async stop(): Promise<void> {
    await this.program.stop();
  }

  async restart(): Promise<void> {
    await this.program.kill();
    await this.start();
  }

  /** Everything in this role's log files. */
  log(): string {
    const folder = join(this.folder, 'log');
    if (!existsSync(folder)) return '';
    return readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name.endsWith('.log'))
      .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'utf8'))
      .join('');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#program?.[Symbol.asyncDispose]();
  }
}

/** A peer or a seed. */
export class Node extends Role {
  get proxy(): string {
    return `http://${this.place.localhost}:${PORTS.proxy}`;
  }

  get socket(): string {
    return join(this.folder, 'd.sock');
  }

  get store(): string {
    return join(this.folder, 'data');
  }

  /** Every sample of the node's metrics, by name and labels as they are written. */
  async metrics(): Promise<ReadonlyMap<string, number>> {
    const { beginning } = await ask(`http://${this.place.address}:${PORTS.metrics}/metrics`);
    const samples = new Map<string, number>();
    for (const line of beginning.toString().split('\n')) {
      const blank = line.lastIndexOf(' ');
      if (blank > 0 && !line.startsWith('#')) samples.set(line.slice(0, blank), Number(line.slice(blank + 1)));
    }
    return samples;
  }

  async traffic(): Promise<NodeTraffic> {
    const samples = await this.metrics();
    const sum = (type: string): number => {
      let bytes = 0;
      for (const [name, value] of samples) {
        if (name.startsWith('dragonfly_client_download_traffic{') && name.includes(`type="${type}"`)) bytes += value;
      }
      return bytes;
    };
    return { origin: sum('BACK_TO_SOURCE'), peers: sum('REMOTE_PEER'), local: sum('LOCAL_PEER') };
  }

  doneLines(): DoneLine[] {
    return this.log()
      .split('\n')
      .filter((line) => line.includes('"peer task done'))
      .map((line) => JSON.parse(line) as DoneLine);
  }
}

export interface SwarmOptions {
  readonly scheduler: Place;
  readonly seeds: readonly Place[];
  readonly peers: readonly Place[];
  /** Schedulers and peers find each other through a manager here; without one, through files. */
  readonly manager?: Place;
  /** Changes to the configuration of each. */
  readonly settings?: {
    readonly manager?: Settings;
    /** Of peers and seeds. */
    readonly peer?: Settings;
    readonly seed?: Settings;
    readonly scheduler?: Settings;
    /** Of the scheduler's cluster, where there is no manager that tells them. */
    readonly cluster?: Settings;
    /** Of one node: seeds are called seed1 and so on, peers node1 and so on. */
    readonly nodes?: Readonly<Record<string, Settings>>;
  };
  /** Folder for all state; the system's temporary one by default. */
  readonly parent?: string;
}

/** A scheduler, seeds and peers, each a process of its own, started from upstream's configuration files. */
export class Swarm implements AsyncDisposable {
  readonly manager: Role | undefined;
  readonly scheduler: Role;
  readonly seeds: readonly Node[];
  readonly peers: readonly Node[];
  readonly #scratch: Scratch;

  private constructor(options: SwarmOptions, scratch: Scratch) {
    this.#scratch = scratch;
    const { manager } = options;
    this.manager = manager === undefined ? undefined : managerRole(manager, options.settings?.manager, scratch);
    this.scheduler = schedulerRole(options, scratch);
    this.seeds = options.seeds.map((place, index) => nodeRole(`seed${index + 1}`, place, true, options, scratch));
    this.peers = options.peers.map((place, index) => nodeRole(`node${index + 1}`, place, false, options, scratch));
  }

  static async start(options: SwarmOptions): Promise<Swarm> {
    const swarm = new Swarm(options, Scratch.create('swarm', options.parent));
    try {
      await swarm.manager?.start();
      await swarm.scheduler.start();
      await Promise.all(swarm.nodes.map((node) => node.start()));
    } catch (error) {
      await swarm[Symbol.asyncDispose]();
      throw error;
    }
    return swarm;
  }

  get nodes(): Node[] {
    return [...this.seeds, ...this.peers];
  }

  get roles(): Role[] {
    return [...(this.manager === undefined ? [] : [this.manager]), this.scheduler, ...this.nodes];
  }

  get seed(): Node {
    return this.seeds[0] as Node;
  }

  /** The first peer: what most cases ask. */
  get peer(): Node {
    return this.peers[0] as Node;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.nodes.map((node) => node[Symbol.asyncDispose]()));
    await this.scheduler[Symbol.asyncDispose]();
    await this.manager?.[Symbol.asyncDispose]();
    await this.#scratch[Symbol.asyncDispose]();
  }
}

function managerRole(place: Place, changes: Settings | undefined, scratch: Scratch): Role {
  const folder = makeFolder(scratch, 'manager');
  const { address } = place;
  const settings: Settings = {
    server: {
      grpc: { listenIP: address, port: { start: MANAGER_PORT, end: MANAGER_PORT } },
      rest: { addr: `${address}:8080` },
      logDir: join(folder, 'log'),
    },
    database: { sqlite: { path: join(folder, 'manager.db') } },
  };
  const config = writeSettings(folder, 'manager.yaml', merge(settings, changes));
  return new Role('manager', place, folder, ['manager', '--config', config], () => accepts(address, MANAGER_PORT));
}

function schedulerRole(options: SwarmOptions, scratch: Scratch): Role {
  const folder = makeFolder(scratch, 'scheduler');
  const { address } = options.scheduler;
  const settings = merge(
    {
      server: {
        advertiseIP: address,
        listenIP: address,
        port: PORTS.scheduler,
        logDir: join(folder, 'log'),
      },
      ...(options.manager === undefined ? {} : { manager: { addr: `${options.manager.address}:${MANAGER_PORT}` } }),
    },
    options.settings?.scheduler,
  );
  const args = ['scheduler', '--config', writeSettings(folder, 'scheduler.yaml', settings)];
  const cluster = options.settings?.cluster;
  if (cluster !== undefined) args.push('--dynconfig', writeSettings(folder, 'dynconfig.yaml', cluster));
  return new Role('scheduler', options.scheduler, folder, args, () => accepts(address, PORTS.scheduler));
}

function nodeRole(name: string, place: Place, seed: boolean, options: SwarmOptions, scratch: Scratch): Node {
  const folder = makeFolder(scratch, name);
  const { address, localhost } = place;
  const settings = merge(
    merge(
      {
        host: { ip: address, hostname: name },
        ...(options.manager === undefined
          ? {}
          : { manager: { addr: `http://${options.manager.address}:${MANAGER_PORT}` } }),
        seedPeer: { enable: seed, ...(seed ? { type: 'super' } : {}) },
        storage: { dir: join(folder, 'data'), server: { ip: address, tcpPort: PORTS.pieces } },
        download: { server: { socketPath: join(folder, 'd.sock') } },
        upload: { server: { ip: address, port: PORTS.grpc } },
        proxy: { server: { ip: localhost, port: PORTS.proxy, requestRateLimit: 0 }, rules: [{ regex: '.*' }] },
        health: { server: { ip: address, port: PORTS.health } },
        metrics: { server: { ip: address, port: PORTS.metrics } },
        stats: { server: { ip: localhost, port: PORTS.stats } },
      },
      options.settings?.peer,
    ),
    seed ? options.settings?.seed : undefined,
  );
  const own = merge(settings, options.settings?.nodes?.[name]);
  const config = writeSettings(folder, 'dfdaemon.yaml', own);
  const dynconfig = writeSettings(folder, 'dynconfig.yaml', {
    scheduler: { addr: `${options.scheduler.address}:${PORTS.scheduler}` },
  });
  const args = ['peer', '--config', config, '--log-dir', join(folder, 'log')];
  if (options.manager === undefined) args.push('--dynconfig', dynconfig);
  return new Node(name, place, folder, args, async () => {
    const { status } = await ask(`http://${address}:${PORTS.health}/healthy`, { deadline: 2000 });
    return status === 200;
  });
}

function makeFolder(scratch: Scratch, name: string): string {
  const folder = scratch.join(name);
  mkdirSync(join(folder, 'log'), { recursive: true });
  return folder;
}

/** JSON is YAML. */
function writeSettings(folder: string, name: string, settings: Settings): string {
  const path = join(folder, name);
  writeFileSync(path, JSON.stringify(settings, undefined, 2));
  return path;
}

function merge(base: Settings, changes: Settings | undefined): Settings {
  const merged: Record<string, Settings[string]> = { ...base };
  for (const [key, value] of Object.entries(changes ?? {})) {
    const before = merged[key];
    const both = isSection(before) && isSection(value);
    merged[key] = both ? merge(before, value) : value;
  }
  return merged;
}

function isSection(value: Settings[string] | undefined): value is Settings {
  return typeof value === 'object' && !Array.isArray(value);
}
