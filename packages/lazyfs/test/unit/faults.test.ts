import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PantalaError } from '@pantala/base';
import { BlobCache, type BlobHandle, layoutsOf, type RegistrySourceOptions, registrySources } from '@pantala/lazyfs';
import { readBootstrap } from '@pantala/rafs';
import { type Content, type Oddities, Origin, Scratch } from '@pantala/testkit';
import { expect, test } from 'vitest';

const FIXTURES = join(import.meta.dirname, '../../../rafs/test/fixtures/nydus-tools');
const ROUNDS = process.env.PANTALA_FULL === '1' ? 20 : 1;

/** Bytes in memory as an origin serves them. */
function contentOf(bytes: Buffer): Content {
  const slice = (start: number, end: number) => bytes.subarray(start, end);
  return {
    length: bytes.length,
    slice,
    *parts(start = 0, end = bytes.length) {
      yield slice(start, end);
    },
    sha256: createHash('sha256').update(bytes).digest('hex'),
    sha256Of: (start: number, end: number) => createHash('sha256').update(slice(start, end)).digest('hex'),
  } as unknown as Content;
}

/** The same with every 1000th byte changed. */
function damaged(bytes: Buffer): Buffer {
  const wrong = Buffer.from(bytes);
  for (let at = 0; at < wrong.length; at += 1000) wrong[at] = (wrong[at] ?? 0) ^ 0x55;
  return wrong;
}

interface Case {
  readonly mirror?: Oddities & { readonly wrong?: boolean };
  readonly registry?: Oddities & { readonly wrong?: boolean };
  /** Code of the reader's error; none: every byte is there and right. */
  readonly error?: PantalaError['code'];
}

/** Reads an image in small pieces from many readers at once; every byte that a reader gets is right. */
async function readEverything(image: string, faults: Case): Promise<void> {
  await using scratch = Scratch.create('faults');
  await using registry = await Origin.start({ host: '127.0.0.1' });
  await using mirror = await Origin.start({ host: '127.0.0.1' });
  const folder = join(FIXTURES, image, 'blobs');
  const stored = new Map(readdirSync(folder).map((id) => [id, readFileSync(join(folder, id))]));
  for (const [id, bytes] of stored) {
    const path = `/v2/some/repo/blobs/sha256:${id}`;
    const serve = (origin: Origin, { wrong, ...oddities }: NonNullable<Case['mirror']>) =>
      origin.serve(path, contentOf(wrong === true ? damaged(bytes) : bytes), oddities);
    serve(registry, faults.registry ?? {});
    serve(mirror, faults.mirror ?? {});
  }
  const options: RegistrySourceOptions = {
    registry: registry.url,
    repository: 'some/repo',
    peerSocket: false,
    timeout: 2_000,
    mirrors: [{ host: mirror.url, healthCheckInterval: 100 }],
  };
  await using sources = registrySources(options);
  await using right = await decodedBlobs(image, scratch.join('right'), stored);
  const bootstrap = readBootstrap(readFileSync(join(FIXTURES, image, 'bootstrap')));
  await using cache = await BlobCache.open({ directory: scratch.join('cache'), demandDeadline: 4_000 });
  const demand = { urgency: 'demand', signal: AbortSignal.timeout(50_000) } as const;
  const layouts = await layoutsOf(bootstrap, { directory: cache.directory, fetcher: sources }, demand);
  await using stack = new AsyncDisposableStack();
  const outcomes: Promise<string>[] = [];
  for (const [index, layout] of layouts.entries()) {
    const blob = stack.use(await cache.blob(layout, { fetcher: sources, pieceLength: 16 * 1024 }));
    const expected = readFileSync(right.blobs[index]?.path ?? '');
    for (let at = 0; at < 64; at++) {
      const start = Math.floor(((at * 7919) % 64) * (blob.size / 64));
      outcomes.push(readPart(blob, start, Math.min(blob.size, start + 9000), expected, demand));
    }
  }
  const codes = new Set(await Promise.all(outcomes));
  // Where everything is wrong, a few chunks without a wrong byte are right all the same.
  if (faults.error === 'data-loss') codes.delete('right');
  expect([...codes]).toEqual([faults.error ?? 'right']);
}

async function readPart(
  blob: BlobHandle,
  start: number,
  end: number,
  expected: Buffer,
  demand: { readonly urgency: 'demand'; readonly signal: AbortSignal },
): Promise<string> {
  try {
    await blob.ensure({ start, end }, demand);
  } catch (error) {
    return PantalaError.from(error).code;
  }
  return readFileSync(blob.path).subarray(start, end).equals(expected.subarray(start, end)) ? 'right' : 'WRONG';
}

/** The blobs of an image, filled from its own files. */
async function decodedBlobs(image: string, directory: string, stored: ReadonlyMap<string, Buffer>) {
  await using stack = new AsyncDisposableStack();
  const cache = stack.use(await BlobCache.open({ directory }));
  const options = { urgency: 'demand', signal: AbortSignal.timeout(50_000) } as const;
  const fetcher = {
    sourceNames: ['memory'],
    blame() {},
    fetch: async (id: string, { start, end }: { start: number; end: number }) => {
      return { bytes: (stored.get(id) as Buffer).subarray(start, end), source: 'memory' };
    },
  };
  const bootstrap = readBootstrap(readFileSync(join(FIXTURES, image, 'bootstrap')));
  const blobs: BlobHandle[] = [];
  for (const layout of await layoutsOf(bootstrap, { directory, fetcher }, options)) {
    const blob = stack.use(await cache.blob(layout, { fetcher }));
    await blob.ensure({ start: 0, end: blob.size }, options);
    blobs.push(blob);
  }
  const owned = stack.move();
  return { blobs, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

const CASES: readonly [string, Case][] = [
  ['nothing is wrong', {}],
  ['the mirror gives wrong bytes', { mirror: { wrong: true } }],
  ['the mirror gives wrong bytes and is slow', { mirror: { wrong: true, bytesPerSecond: 2_000_000 } }],
  ['the mirror is silent', { mirror: { silent: true } }],
  ['the mirror is silent now and then', { mirror: { silent: true, times: 3 } }],
  ['the mirror breaks off', { mirror: { truncateAfter: 700 } }],
  ['the mirror is out of order', { mirror: { status: 503 } }],
  ['the mirror shifts what it sends', { mirror: { offsetError: 1 } }],
  ['the mirror ignores ranges and lies', { mirror: { ignoresRange: true, wrong: true } }],
  ['tokens are good for few requests', { mirror: { status: 404 }, registry: { tokenRequests: 5 } }],
  ['the registry is gone, the mirror is not', { registry: { status: 500 } }],
  ['the registry is silent, the mirror is not', { registry: { silent: true } }],
  ['the registry comes back', { mirror: { status: 500 }, registry: { status: 503, times: 6 } }],
  ['both give wrong bytes', { mirror: { wrong: true }, registry: { wrong: true }, error: 'data-loss' }],
  ['both are silent', { mirror: { silent: true }, registry: { silent: true }, error: 'deadline-exceeded' }],
  ['nobody has it', { mirror: { status: 404 }, registry: { status: 404 }, error: 'not-found' }],
  [
    'the credentials are none any more',
    { mirror: { status: 401 }, registry: { status: 403 }, error: 'permission-denied' },
  ],
];

test.each(CASES)('64 readers of an image: %s', { timeout: 60_000 * ROUNDS }, async (_what, faults) => {
  // Blobs with batches have chunk information of their own, whose fetch fails before there is anything to read.
  const images = faults.error === undefined ? ['m-zstd', 'm-batch-zstd', 'm-lz4_block'] : ['m-zstd'];
  for (let round = 0; round < ROUNDS; round++) {
    for (const image of images) await readEverything(image, faults);
  }
});
