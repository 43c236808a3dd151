import { mkdirSync, writeFileSync } from 'node:fs';
import { type Place, Program, run } from './program.ts';
import { Scratch } from './scratch.ts';
import { accepts } from './wait.ts';

export interface RegistryOptions {
  readonly place: Place;
  readonly port?: number;
  /** Basic authentication with this user and password for everything. */
  readonly user?: { readonly name: string; readonly password: string };
  /** Folder for what it holds; the system's temporary one by default. */
  readonly parent?: string;
}

/** One answer of the registry, by its own access log. */
export interface RegistryAccess {
  readonly method: string;
  readonly path: string;
  readonly status: number;
  /** Bytes of the body that it wrote. */
  readonly bytes: number;
  readonly userAgent: string;
}

const DEFAULT_PORT = 5000;
const ACCESS = /"([A-Z]+) (\S+) HTTP\/[\d.]+" (\d{3}) (\d+) "[^"]*" "([^"]*)"/g;

/** A real docker-registry. What it handed out is counted by itself, in its access log. */
export class Registry implements AsyncDisposable {
  readonly host: string;
  readonly url: string;
  readonly program: Program;
  readonly #scratch: Scratch;
  #skip = 0;

  private constructor(host: string, program: Program, scratch: Scratch) {
    this.host = host;
    this.url = `http://${host}`;
    this.program = program;
    this.#scratch = scratch;
  }

  static async start(options: RegistryOptions): Promise<Registry> {
    const scratch = Scratch.create('registry', options.parent);
    const host = `${options.place.address}:${options.port ?? DEFAULT_PORT}`;
    const lines = [
      'version: 0.1',
      // Its own log goes away; the access log, which is always on stdout, stays.
      'log: {level: error}',
      `storage: {filesystem: {rootdirectory: ${scratch.join('data')}}, delete: {enabled: true}}`,
      `http: {addr: "${host}"}`,
    ];
    if (options.user !== undefined) {
      const { name, password } = options.user;
      const { stdout } = await run('htpasswd', ['-Bbn', name, password]);
      writeFileSync(scratch.join('htpasswd'), stdout.trim());
      lines.push(`auth: {htpasswd: {realm: pantala, path: ${scratch.join('htpasswd')}}}`);
    }
    mkdirSync(scratch.join('data'));
    writeFileSync(scratch.join('config.yml'), `${lines.join('\n')}\n`);
    const [address, port] = [options.place.address, options.port ?? DEFAULT_PORT];
    const program = await Program.start('docker-registry', ['serve', scratch.join('config.yml')], {
      name: 'docker-registry',
      place: options.place,
      ready: () => accepts(address, port),
    });
    return new Registry(host, program, scratch);
  }

  /** Forgets what was handed out so far (the pushes of the preparation). */
  resetCount(): void {
    this.#skip = this.#log().length;
  }

  /** What was answered since the last reset. An answer stands there when it has ended. */
  accesses(): RegistryAccess[] {
    return this.#log().slice(this.#skip);
  }

  /** Bytes of bodies handed out by GET since the last reset; of one blob when `digest` is given. */
  bytesOut(digest?: string): number {
    return this.accesses()
      .filter((access) => access.method === 'GET' && (digest === undefined || access.path.includes(digest)))
      .reduce((sum, access) => sum + access.bytes, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.program[Symbol.asyncDispose]();
    await this.#scratch[Symbol.asyncDispose]();
  }

  #log(): RegistryAccess[] {
    return [...this.program.stdout.matchAll(ACCESS)].map(([, method, path, status, bytes, userAgent]) => ({
      method: method as string,
      path: path as string,
      status: Number(status),
      bytes: Number(bytes),
      userAgent: userAgent as string,
    }));
  }
}
