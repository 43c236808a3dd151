import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { accepts, ask, loopbackPlace, Program, run, Scratch } from '@pantala/testkit';
import { judge } from './installed.ts';

export interface DragonflyOptions {
  /** `host:port`; one of the two. */
  readonly manager?: string;
  readonly scheduler?: string;
  /** Announces itself as a seed, which a scheduler may tell to download. */
  readonly seed?: boolean;
  /** Of what it gives to others, as its configuration has it: "20MiB" a second. */
  readonly uploadRate?: string;
}

/** Bytes that a daemon got, by its own metrics. */
export interface DragonflyTraffic {
  readonly origin: number;
  readonly peers: number;
}

/** The bytes of a download, as the command that asked for it saw it end. */
export interface Outcome {
  readonly code: number | null;
  readonly output: string;
  readonly said: string;
}

/** Milliseconds: it samples the host's network for three seconds before it opens its socket. */
const START = 90_000;
const DOWNLOAD = 60_000;

let named = 0;

/** An unmodified Dragonfly peer (dfdaemon) with ports, folders and an address of its own. */
export class Dragonfly implements AsyncDisposable {
  readonly hostname: string;
  readonly address: string;
  readonly #program: Program;
  readonly #scratch: Scratch;
  readonly #metricsPort: number;
  #outputs = 0;

  private constructor(hostname: string, address: string, program: Program, scratch: Scratch, metricsPort: number) {
    this.hostname = hostname;
    this.address = address;
    this.#program = program;
    this.#scratch = scratch;
    this.#metricsPort = metricsPort;
  }

  static async start(options: DragonflyOptions): Promise<Dragonfly> {
    const scratch = Scratch.create('dragonfly');
    const { address } = loopbackPlace();
    const hostname = `dragonfly${++named}`;
    const folder = (name: string): string => {
      mkdirSync(scratch.join(name));
      return scratch.join(name);
    };
    // Not all of its listeners can be bound to an address: each gets a port of its own.
    const [metrics, health, stats] = await freePorts(3);
    const settings = {
      host: { ip: address, hostname },
      server: { pluginDir: folder('plugins'), cacheDir: folder('cache') },
      manager: options.manager === undefined ? {} : { addr: `http://${options.manager}` },
      seedPeer: { enable: options.seed ?? false, type: 'super' },
      dynconfig: { refreshInterval: '5s' },
      scheduler: { announceInterval: '10s' },
      storage: { dir: folder('data'), keep: true, server: { ip: address, tcpPort: 4005, quicPort: 4006 } },
      download: { server: { socketPath: scratch.join('d.sock') } },
      upload: { server: { ip: address, port: 4000 }, bandwidthLimit: options.uploadRate ?? '50GB' },
      proxy: { server: { ip: address, port: 4001 }, rules: [{ regex: '.*' }] },
      health: { server: { ip: address, port: health } },
      metrics: { server: { ip: address, port: metrics } },
      stats: { server: { ip: address, port: stats } },
    };
    writeFileSync(scratch.join('dfdaemon.yaml'), JSON.stringify(settings));
    writeFileSync(scratch.join('dynconfig.yaml'), JSON.stringify({ scheduler: { addrs: [options.scheduler ?? ''] } }));
    try {
      const program = await Program.start(
        judge('dfdaemon'),
        [
          `--config=${scratch.join('dfdaemon.yaml')}`,
          `--dynconfig=${scratch.join('dynconfig.yaml')}`,
          `--log-dir=${folder('log')}`,
        ],
        {
          name: hostname,
          ready: async () =>
            existsSync(scratch.join('d.sock')) && (await accepts(address, 4000)) && (await accepts(address, 4001)),
          readyTimeout: START,
        },
      );
      return new Dragonfly(hostname, address, program, scratch, metrics as number);
    } catch (error) {
      const said = logOf(scratch.join('log', 'dfdaemon.log'));
      await scratch[Symbol.asyncDispose]();
      throw new Error(`${hostname} did not start:\n${said.slice(-3000)}`, { cause: error });
    }
  }

  get proxy(): string {
    return `http://${this.address}:4001`;
  }

  /** Has it download with dfget, to its end. */
  async get(url: string, ...args: readonly string[]): Promise<Outcome> {
    const output = this.#scratch.join(`output${++this.#outputs}`);
    const ended = await run(
      judge('dfget'),
      [url, '--output', output, '--endpoint', this.#scratch.join('d.sock'), '--no-progress', ...args],
      { check: false, timeout: DOWNLOAD },
    );
    return { code: ended.code, output, said: ended.stderr + ended.stdout };
  }

  async traffic(): Promise<DragonflyTraffic> {
    const { beginning } = await ask(`http://${this.address}:${this.#metricsPort}/metrics`);
    const sum = (type: string): number => {
      let bytes = 0;
      for (const line of beginning.toString().split('\n')) {
        if (line.startsWith('dragonfly_client_download_traffic{') && line.includes(`type="${type}"`)) {
          bytes += Number(line.slice(line.lastIndexOf(' ')));
        }
      }
      return bytes;
    };
    return { origin: sum('BACK_TO_SOURCE'), peers: sum('REMOTE_PEER') };
  }

  log(): string {
    return logOf(this.#scratch.join('log', 'dfdaemon.log'));
  }

  /** As a crash looks. */
  async kill(): Promise<void> {
    await this.#program.kill();
  }

  /** An orderly end: it takes leave of the scheduler. */
  async stop(): Promise<void> {
    await this.#program.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#program[Symbol.asyncDispose]();
    await this.#scratch[Symbol.asyncDispose]();
  }
}

/** Without what it says each second of an interface that it does not know. */
function logOf(path: string): string {
  if (!existsSync(path)) return '';
  const lines = readFileSync(path, 'utf8').split('\n');
  return lines.filter((line) => !line.includes('can not find network data')).join('\n');
}

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports: number[] = [];
  for (const server of servers) {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.once('error', reject).listen(0, '0.0.0.0', resolve);
    await promise;
    const address = server.address();
    if (typeof address === 'object' && address !== null) ports.push(address.port);
  }
  for (const server of servers) server.close();
  return ports;
}
