import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { type Agent, request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { pipeline } from 'node:stream/promises';
import { PantalaError } from '@pantala/base';
import { PATIENCE, within } from './wait.ts';

export interface Ask {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Asks this forward proxy (absolute form) instead of the server. */
  readonly proxy?: string;
  /** Keeps connections. */
  readonly agent?: Agent;
  /** Where the body goes; else only its digest and its first bytes are kept. */
  readonly output?: string;
  /** Milliseconds until it counts as hanging. */
  readonly deadline?: number;
  readonly signal?: AbortSignal;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly bytes: number;
  /** Hex digest of the body. */
  readonly sha256: string;
  /** The body's beginning. */
  readonly beginning: Buffer;
  /** Whether the body ended as it should. */
  readonly whole: boolean;
  readonly seconds: number;
}

/** What is kept of a body. */
const BEGINNING = 64 * 1024;

/**
 * One plain HTTP/1.1 request, followed to its end; redirects and errors are the caller's business. A body that
 * breaks off is no error but `whole: false`.
 */
export function ask(url: string, options: Ask = {}): Promise<Answer> {
  return within(options.deadline ?? 5 * PATIENCE, `${options.method ?? 'GET'} ${url}`, converse(url, options));
}

async function converse(url: string, options: Ask): Promise<Answer> {
  const started = performance.now();
  const target = new URL(url);
  const next = options.proxy === undefined ? target : new URL(options.proxy);
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const outgoing = httpRequest(
    {
      host: next.hostname,
      port: next.port === '' ? 80 : next.port,
      method: options.method ?? 'GET',
      path: options.proxy === undefined ? target.pathname + target.search : url,
      headers: { host: target.host, ...options.headers },
      agent: options.agent ?? false,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    },
    (response) => {
      const hash = createHash('sha256');
      let bytes = 0;
      let beginning = Buffer.alloc(0);
      const finish = (whole: boolean): void =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          bytes,
          sha256: hash.digest('hex'),
          beginning,
          whole,
          seconds: (performance.now() - started) / 1000,
        });
      const count = async function* (parts: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
        for await (const part of parts) {
          hash.update(part);
          bytes += part.length;
          if (beginning.length < BEGINNING) beginning = Buffer.concat([beginning, part.subarray(0, BEGINNING)]);
          yield part;
        }
      };
      const work =
        options.output === undefined
          ? pipeline(response, count, async (parts: AsyncIterable<Buffer>) => {
              for await (const part of parts) void part;
            })
          : pipeline(response, count, createWriteStream(options.output));
      work.then(
        () => finish(response.complete),
        () => finish(false),
      );
    },
  );
  outgoing.on('error', (error) =>
    reject(new PantalaError('unavailable', `${url}: ${error.message}`, { cause: error })),
  );
  outgoing.end();
  return promise;
}

export interface PulledImage {
  readonly bytes: number;
  readonly seconds: number;
}

interface Manifest {
  readonly config: { readonly digest: string; readonly size: number };
  readonly layers: readonly { readonly digest: string; readonly size: number }[];
}

/** containerd fetches this many layers at once. */
const LAYERS_AT_ONCE = 3;

/**
 * Pulls an image as containerd does through a mirror, checks every digest and keeps nothing. For machines on which
 * containerd cannot run.
 */
export async function pullThroughMirror(
  mirror: string,
  image: { readonly registry: string; readonly repository: string; readonly tag: string },
): Promise<PulledImage> {
  const started = performance.now();
  const headers = { 'x-dragonfly-registry': image.registry, accept: 'application/vnd.oci.image.manifest.v1+json' };
  const base = `${mirror}/v2/${image.repository}`;
  const manifest = await ask(`${base}/manifests/${image.tag}`, { headers });
  if (manifest.status !== 200) throw new PantalaError('unavailable', `manifest: status ${manifest.status}`);
  const parsed = JSON.parse(manifest.beginning.toString()) as Manifest;
  const wanted = [parsed.config, ...parsed.layers];
  let bytes = manifest.bytes;
  const worker = async (): Promise<void> => {
    for (let blob = wanted.shift(); blob !== undefined; blob = wanted.shift()) {
      const answer = await ask(`${base}/blobs/${blob.digest}`, { headers });
      if (answer.status !== 200 || !answer.whole || `sha256:${answer.sha256}` !== blob.digest) {
        throw new PantalaError('data-loss', `${blob.digest}: status ${answer.status}, ${answer.bytes} bytes`);
      }
      bytes += answer.bytes;
    }
  };
  await Promise.all(Array.from({ length: LAYERS_AT_ONCE }, worker));
  return { bytes, seconds: (performance.now() - started) / 1000 };
}
