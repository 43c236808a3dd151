import { createClient, dfdaemonV2, pantalaV1, RpcError, type RpcTls } from '@pantala/api';
import { abortable, Backoff, monotonicNow, PantalaError, type RateLimiter } from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import type { ParentAddress, ParentPool } from '@pantala/transfer';
import type { DownloadRequest } from '../contract.ts';
import type { ServerAddress, SwarmOptions } from '../options.ts';
import type { Candidate } from '../schedulers/session.ts';
import { PantalaParent } from './pantala-parent.ts';
import type { Parent, ParentListener } from './parent.ts';
import { UpstreamParent } from './upstream-parent.ts';

/** Milliseconds between pings, and for their answers: a machine that is gone without a word is noticed soon. */
const KEEPALIVE = { keepaliveInterval: 10_000, keepaliveTimeout: 5000 };
/** Milliseconds that a peer may take to say what it speaks. */
const DESCRIBE_TIMEOUT = 2000;
/** Milliseconds that a peer that failed is left out, at first and at most. */
const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 60_000;
/** Peers remembered at once: more than any node meets while they matter. */
const MAX_HOSTS = 4096;

/** What is known of one other peer's process. */
interface ParentHost {
  readonly peer: ReturnType<typeof peerClient>;
  readonly upload: ReturnType<typeof uploadClient>;
  readonly pauses: Backoff;
  /** Milliseconds (monotonic) until which it is left out. */
  pausedUntil: number;
  /** It is left out as it has not answered yet: it is asked for a sign apart from any reader, and then comes back. */
  doubted: boolean;
  described: Promise<Description> | undefined;
}

type Description = { readonly pieces: ParentAddress } | 'upstream';

export interface OpenParent {
  readonly task: StoredTask;
  readonly bulk: boolean;
  request(): DownloadRequest;
  readonly listener: ParentListener;
}

/** Every other peer that this process has met: what it speaks, and whether it is left out for a while. */
export class ParentHosts implements AsyncDisposable {
  readonly #hostId: string;
  readonly #tls: RpcTls | undefined;
  readonly #pool: ParentPool;
  readonly #limiter: RateLimiter | undefined;
  readonly #hosts = new Map<string, ParentHost>();

  constructor(
    { hostId, peerTls }: Pick<SwarmOptions, 'hostId' | 'peerTls'>,
    pool: ParentPool,
    limiter: RateLimiter | undefined,
  ) {
    this.#hostId = hostId;
    this.#tls = peerTls;
    this.#pool = pool;
    this.#limiter = limiter;
  }

  /** Whether a peer may be asked: it has not failed lately. */
  isUsable(address: ServerAddress): boolean {
    const host = this.#host(address);
    if (host.pausedUntil > monotonicNow()) return false;
    if (host.doubted) this.#probe(host, address);
    return !host.doubted;
  }

  /** It failed: leave it out for a while, longer each time. */
  failed(address: ServerAddress): void {
    const host = this.#host(address);
    host.pausedUntil = monotonicNow() + Math.max(FIRST_PAUSE, host.pauses.next());
    host.described = undefined;
  }

  /** It has not answered in the time that a reader may lose: the next ones do without it until it does. */
  doubt(address: ServerAddress): void {
    const host = this.#host(address);
    if (host.pausedUntil > monotonicNow()) return;
    host.doubted = true;
    host.pausedUntil = monotonicNow() + FIRST_PAUSE;
  }

  /** It has answered after all. */
  heard(address: ServerAddress): void {
    const host = this.#host(address);
    if (!host.doubted) return;
    host.doubted = false;
    host.pausedUntil = 0;
  }

  /** It gave what it was asked for. */
  worked(address: ServerAddress): void {
    this.#host(address).pauses.reset();
  }

  /** Learns what a candidate speaks, and begins to watch what it holds. @throws when it cannot be reached */
  async open(candidate: Candidate, open: OpenParent, signal: AbortSignal): Promise<Parent> {
    const host = this.#host(candidate.address);
    const met = host.described !== undefined;
    host.described ??= describe(host, candidate.address);
    const described = host.described;
    const description = await abortable(described, signal).catch((error: unknown) => {
      if (host.described === described) host.described = undefined;
      throw error;
    });
    const { task, listener } = open;
    // It has just answered: whatever it is slow with now, it is not dead.
    if (!met) listener.news({ held: [], assigned: [], deferred: [] });
    const common = { candidate, task, hostId: this.#hostId, listener };
    if (description === 'upstream')
      return new UpstreamParent({ ...common, client: host.upload, limiter: this.#limiter });
    return new PantalaParent({
      ...common,
      bulk: open.bulk,
      client: host.peer,
      pieces: description.pieces,
      connect: (address, connectSignal) => this.#pool.connection(address, connectSignal),
      request: () => open.request(),
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const host of this.#hosts.values()) closeHost(host);
    this.#hosts.clear();
  }

  /** Asks one that was silent for a sign; no reader waits for it. */
  #probe(host: ParentHost, address: ServerAddress): void {
    host.pausedUntil = monotonicNow() + DESCRIBE_TIMEOUT;
    const described = describe(host, address);
    described.then(
      () => {
        host.described = described;
        this.heard(address);
      },
      () => this.failed(address),
    );
  }

  #host(address: ServerAddress): ParentHost {
    const key = `${address.host}:${address.port}`;
    const found = this.#hosts.get(key);
    if (found !== undefined) return found;
    const host: ParentHost = {
      peer: peerClient(address, this.#tls),
      upload: uploadClient(address, this.#tls),
      pauses: new Backoff({ initial: FIRST_PAUSE, limit: LONGEST_PAUSE, jitter: 0.2 }),
      pausedUntil: 0,
      doubted: false,
      described: undefined,
    };
    for (const [oldest, dropped] of this.#hosts) {
      if (this.#hosts.size < MAX_HOSTS) break;
      this.#hosts.delete(oldest);
      closeHost(dropped);
    }
    this.#hosts.set(key, host);
    return host;
  }
}

async function describe(host: ParentHost, address: ServerAddress): Promise<Description> {
  try {
    const { tcpPort } = await host.peer.describe({});
    if (tcpPort === 0) throw new PantalaError('unavailable', `${address.host}:${address.port} serves no pieces`);
    return { pieces: { host: address.host, port: tcpPort } };
  } catch (error) {
    if (error instanceof RpcError && error.code === 'unimplemented') return 'upstream';
    throw error;
  }
}

function peerClient(address: ServerAddress, tls: RpcTls | undefined) {
  return createClient(pantalaV1.Peer, address, { deadline: DESCRIBE_TIMEOUT, tls, ...KEEPALIVE });
}

function uploadClient(address: ServerAddress, tls: RpcTls | undefined) {
  return createClient(dfdaemonV2.DfdaemonUpload, address, { deadline: DESCRIBE_TIMEOUT, tls });
}

function closeHost(host: ParentHost): void {
  host.peer[Symbol.dispose]();
  host.upload[Symbol.dispose]();
}
