import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { connect, type IncomingHttpHeaders } from 'node:http2';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { PantalaError } from '@pantala/base';
import { type Place, Program, run } from './program.ts';
import { Scratch } from './scratch.ts';
import { PATIENCE, until } from './wait.ts';

export interface ContainerdOptions {
  readonly place: Place;
  /** The daemon's binary; `containerd` of the system by default. Its `ctr` is expected beside it. */
  readonly binary?: string;
  /** Whether its configuration names the mirror folder; it does by default. */
  readonly namesHostsDir?: boolean;
  /** Starts the daemon in another way than as a child of ours. */
  readonly launch?: (command: string, args: readonly string[]) => Promise<AsyncDisposable>;
}

/** A mirror for one registry, as containerd's hosts.toml has it. */
export interface Mirror {
  /** `host:port` of the registry. */
  readonly registry: string;
  /** What containerd asks when the mirror fails. */
  readonly server: string;
  /** The mirror, `http://127.0.0.1:4001`. */
  readonly mirror: string;
}

/** A containerd with its own root, state, socket and mirror folder. */
export class Containerd implements AsyncDisposable {
  readonly socket: string;
  /** `config_path` of CRI and `--hosts-dir` of ctr. */
  readonly hostsDir: string;
  readonly configFile: string;
  readonly #daemon: AsyncDisposable;
  readonly #scratch: Scratch;
  readonly #place: Place;
  readonly #ctr: string;

  private constructor(daemon: AsyncDisposable, scratch: Scratch, place: Place, ctr: string) {
    this.#daemon = daemon;
    this.#scratch = scratch;
    this.#place = place;
    this.#ctr = ctr;
    this.socket = scratch.join('c.sock');
    this.hostsDir = scratch.join('certs.d');
    this.configFile = scratch.join('config.toml');
  }

  static async start(options: ContainerdOptions): Promise<Containerd> {
    const scratch = Scratch.create('containerd');
    const binary = options.binary ?? 'containerd';
    mkdirSync(scratch.join('certs.d'));
    writeFileSync(scratch.join('config.toml'), configuration(scratch, options.namesHostsDir ?? true));
    try {
      const socket = scratch.join('c.sock');
      const ready = async () => existsSync(socket) && (await answers(socket));
      const args = ['--config', scratch.join('config.toml')];
      const launch =
        options.launch ?? (() => Program.start(binary, args, { name: 'containerd', place: options.place, ready }));
      const daemon = await launch(binary, args);
      await until(ready, { what: 'containerd answers' });
      const ctr = binary.includes('/') ? join(binary, '..', 'ctr') : 'ctr';
      return new Containerd(daemon, scratch, options.place, ctr);
    } catch (error) {
      await scratch[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Writes hosts.toml as `pantala init containerd` does, by hand. */
  useMirror(mirror: Mirror): void {
    // containerd writes a port as `host:port` on Linux; the folder's name is the same.
    const folder = join(this.hostsDir, mirror.registry);
    mkdirSync(folder, { recursive: true });
    writeFileSync(
      join(folder, 'hosts.toml'),
      [
        `server = "${mirror.server}"`,
        `[host."${mirror.mirror}"]`,
        '  capabilities = ["pull", "resolve"]',
        `  [host."${mirror.mirror}".header]`,
        `    X-Dragonfly-Registry = ["${mirror.server}"]`,
        '',
      ].join('\n'),
    );
  }

  /** Pulls and unpacks with `ctr`. Resolves with the seconds that it took. */
  async pull(reference: string, options: { readonly user?: string } = {}): Promise<number> {
    const started = performance.now();
    await this.#run(
      ['images', 'pull', '--hosts-dir', this.hostsDir, ...(options.user ? ['--user', options.user] : []), reference],
      30 * PATIENCE,
    );
    return (performance.now() - started) / 1000;
  }

  /** Pulls as the kubelet does, by CRI. Resolves with the image's id. */
  async pullByCri(reference: string): Promise<string> {
    // PullImageRequest{image: ImageSpec{image}} and PullImageResponse{image_ref}: every field has the number 1.
    const answer = await unary(this.socket, '/runtime.v1.ImageService/PullImage', text(1, text(1, reference)));
    return answer.subarray(2).toString('utf8');
  }

  async remove(reference: string): Promise<void> {
    await this.#run(['images', 'rm', '--sync', reference], PATIENCE);
  }

  /** Digests of everything in the content store. */
  async blobs(namespace = 'default'): Promise<string[]> {
    const { stdout } = await run(this.#ctr, ['-a', this.socket, '-n', namespace, 'content', 'ls', '-q'], {
      place: this.#place,
    });
    return stdout.split('\n').filter(Boolean);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#daemon[Symbol.asyncDispose]();
    await this.#scratch[Symbol.asyncDispose]();
  }

  async #run(args: readonly string[], timeout: number): Promise<void> {
    await run(this.#ctr, ['-a', this.socket, ...args], { place: this.#place, timeout });
  }
}

function configuration(scratch: Scratch, namesHostsDir: boolean): string {
  return `version = 2
root = "${scratch.join('root')}"
state = "${scratch.join('state')}"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "${scratch.join('c.sock')}"
[ttrpc]
  address = "${scratch.join('t.sock')}"
[debug]
  level = "warn"
[plugins."io.containerd.internal.v1.opt"]
  path = "${scratch.join('opt')}"
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  disable_tcp_service = true
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
${namesHostsDir ? `  [plugins."io.containerd.grpc.v1.cri".registry]\n    config_path = "${scratch.join('certs.d')}"\n` : ''}`;
}

async function answers(socket: string): Promise<boolean> {
  await unary(socket, '/containerd.services.version.v1.Version/Version', Buffer.alloc(0));
  return true;
}

/** A length-delimited protobuf field (type 2) with a value of any length. */
function text(field: number, value: string | Buffer): Buffer {
  const bytes = Buffer.from(value);
  const length: number[] = [];
  for (let rest = bytes.length; ; rest >>>= 7) {
    if (rest < 0x80) {
      length.push(rest);
      break;
    }
    length.push((rest & 0x7f) | 0x80);
  }
  return Buffer.concat([Buffer.from([(field << 3) | 2, ...length]), bytes]);
}

/** One unary gRPC call over a unix socket: too little to need a client library. */
async function unary(socket: string, method: string, message: Buffer): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const session = connect('http://localhost', { createConnection: () => createConnection(socket) });
  session.on('error', reject);
  const frame = Buffer.alloc(5);
  frame.writeUInt32BE(message.length, 1);
  const stream = session.request({
    ':method': 'POST',
    ':path': method,
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  const parts: Buffer[] = [];
  let status = '';
  let detail = '';
  const note = (headers: IncomingHttpHeaders): void => {
    const { 'grpc-status': answered, 'grpc-message': message } = headers;
    if (typeof answered !== 'string') return;
    status = answered;
    detail = typeof message === 'string' ? decodeURIComponent(message) : '';
  };
  stream.on('response', note).on('trailers', note).on('error', reject);
  stream.on('data', (part: Buffer) => parts.push(part));
  stream.on('end', () => {
    if (status === '0') resolve(Buffer.concat(parts).subarray(5));
    else reject(new PantalaError('failed-precondition', `${method}: status ${status}: ${detail}`));
  });
  stream.end(Buffer.concat([frame, message]));
  try {
    return await promise;
  } finally {
    session.close();
  }
}
