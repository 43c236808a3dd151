import { Backoff, PantalaError, sleep } from '@pantala/base';
import { refusal } from './refusal.ts';
import type { BlobUpload, Repository, UploadOptions } from './repository.ts';
import type { HttpResponse } from './transport.ts';

/** Times that a chunk is sent in all. */
const CHUNK_ATTEMPTS = 4;
/** Bytes of a chunk at most: it is kept in memory to be sent again. */
const MAX_CHUNK_LENGTH = 64 * 1024 * 1024;

/** Uploads a blob that the registry lacks (distribution-spec, "Pushing blobs"). */
export async function uploadBlob(
  repository: Repository,
  blob: BlobUpload,
  options: UploadOptions,
): Promise<'mounted' | 'uploaded'> {
  const { registry, name } = repository;
  const { mountFrom, signal } = options;
  const scope =
    mountFrom === undefined
      ? repository.scope('pull,push')
      : `${repository.scope('pull,push')} repository:${mountFrom}:pull`;
  const query = mountFrom === undefined ? '' : `?mount=${blob.digest}&from=${encodeURIComponent(mountFrom)}`;
  const what = `upload of ${blob.digest} to ${name}`;
  const request = (method: string, target: string | URL, headers: Record<string, string>, body?: BlobUpload['open']) =>
    registry.request({
      method,
      target,
      scope,
      headers,
      signal,
      repeatable: false,
      ...(body === undefined ? {} : { body }),
    });
  const begun = await request('POST', `/v2/${name}/blobs/uploads/${query}`, { 'content-length': '0' });
  if (begun.status === 201) {
    await begun[Symbol.asyncDispose]();
    return 'mounted';
  }
  if (begun.status !== 202) throw await refusal(begun, what);
  const session = new UploadSession(begun, registry.url, what);
  await begun[Symbol.asyncDispose]();
  try {
    if (options.chunkLength === undefined) {
      const headers = { 'content-type': 'application/octet-stream', 'content-length': String(blob.size) };
      await finish(await request('PUT', session.closing(blob.digest), headers, blob.open), what);
    } else {
      for await (const { data, start } of chunks(blob, chunkLength(options.chunkLength, session.minChunkLength))) {
        await sendChunk(session, request, data, start, signal);
      }
      await finish(await request('PUT', session.closing(blob.digest), { 'content-length': '0' }), what);
    }
  } catch (error) {
    // Registries collect what was given up; telling them sooner is a courtesy that may fail.
    await request('DELETE', session.location, {}).then(
      (response) => response[Symbol.asyncDispose](),
      () => {},
    );
    throw error;
  }
  return 'uploaded';
}

/** Where an upload goes on. */
class UploadSession {
  location: URL;
  readonly minChunkLength: number;
  readonly what: string;
  readonly #registry: URL;

  constructor(response: HttpResponse, registry: URL, what: string) {
    this.#registry = registry;
    this.what = what;
    this.location = this.#locationOf(response, registry);
    this.minChunkLength = Number(response.headers['oci-chunk-min-length'] ?? 0) || 0;
  }

  moved(response: HttpResponse): void {
    if (response.headers.location !== undefined) this.location = this.#locationOf(response, this.location);
  }

  closing(digest: string): URL {
    const url = new URL(this.location);
    url.searchParams.set('digest', digest);
    return url;
  }

  #locationOf(response: HttpResponse, base: URL): URL {
    const url = URL.parse(response.headers.location ?? '', base.href);
    if (response.headers.location === undefined || url === null || !/^https?:$/.test(url.protocol)) {
      throw new PantalaError('origin', `${this.what}: ${this.#registry.host} did not say where to upload to`);
    }
    return url;
  }
}

type Send = (
  method: string,
  target: string | URL,
  headers: Record<string, string>,
  body?: BlobUpload['open'],
) => Promise<HttpResponse>;

/** Sends a chunk; after a failure asks how much arrived and goes on from there. */
async function sendChunk(
  session: UploadSession,
  request: Send,
  data: Buffer,
  start: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const backoff = new Backoff({ initial: 200, limit: 5_000 });
  let arrived = 0;
  for (let attempt = 1; ; attempt++) {
    const rest = data.subarray(arrived);
    const first = start + arrived;
    const headers = {
      'content-type': 'application/octet-stream',
      'content-length': String(rest.length),
      'content-range': `${first}-${first + rest.length - 1}`,
    };
    try {
      const response = await request('PATCH', session.location, headers, () => [rest]);
      if (response.status === 202 || response.status === 204) {
        session.moved(response);
        await response[Symbol.asyncDispose]();
        return;
      }
      const error = await refusal(response, session.what);
      if (response.status < 500 && response.status !== 416) throw error;
      if (attempt === CHUNK_ATTEMPTS) throw error;
    } catch (thrown) {
      const error = PantalaError.from(thrown);
      const passing = error.code === 'unavailable' || error.code === 'out-of-range';
      if (!passing || attempt === CHUNK_ATTEMPTS) throw error;
    }
    await sleep(backoff.next(), signal);
    arrived = await arrivedOf(session, request, start, data.length);
    if (arrived === data.length) return;
  }
}

/** Bytes of the chunk at `start` that the registry has. */
async function arrivedOf(session: UploadSession, request: Send, start: number, length: number): Promise<number> {
  await using response = await request('GET', session.location, {});
  if (response.status !== 204 && response.status !== 202) throw await refusal(response, session.what);
  session.moved(response);
  const last = Number(/^(?:bytes=)?0-(\d{1,15})$/.exec(response.headers.range ?? '')?.[1] ?? Number.NaN);
  // `0-0` stands for nothing as well as for one byte: what was sent before tells them apart only from the second on.
  const total = Number.isNaN(last) || last === 0 ? 0 : last + 1;
  if (total < start || total > start + length) {
    throw new PantalaError(
      'origin',
      `${session.what}: the registry has ${total} bytes, which is not where it was left`,
    );
  }
  return total - start;
}

async function* chunks(blob: BlobUpload, length: number): AsyncGenerator<{ data: Buffer; start: number }> {
  let parts: Uint8Array[] = [];
  let held = 0;
  let start = 0;
  for await (const part of blob.open()) {
    parts.push(part);
    held += part.length;
    while (held >= length) {
      const all = Buffer.concat(parts);
      yield { data: all.subarray(0, length), start };
      start += length;
      parts = [all.subarray(length)];
      held -= length;
    }
  }
  if (held > 0) yield { data: Buffer.concat(parts), start };
}

function chunkLength(asked: number, least: number): number {
  if (least > MAX_CHUNK_LENGTH) {
    throw new PantalaError(
      'unimplemented',
      `the registry wants chunks of at least ${least} bytes; upload in one request`,
    );
  }
  return Math.min(MAX_CHUNK_LENGTH, Math.max(asked, least, 1));
}

async function finish(response: HttpResponse, what: string): Promise<void> {
  if (response.status !== 201 && response.status !== 204) throw await refusal(response, what);
  await response[Symbol.asyncDispose]();
}
