import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type ByteRange, monotonicNow, type PantalaError, sha256Hex } from '@pantala/base';
import { localSources, type RegistrySourceOptions, registrySources, type SourceChain } from '@pantala/lazyfs';
import { Registry as RegistryClient } from '@pantala/oci';
import { Content, loopbackPlace, type Oddities, Origin, Registry, Scratch } from '@pantala/testkit';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

const BYTES = 300_000;
const content = new Content(BYTES, 'sources');
const bytes = content.slice(0, BYTES);
const id = sha256Hex(bytes);
const PATH = `/v2/some/repo/blobs/sha256:${id}`;

function read(chain: SourceChain, range: ByteRange, urgency: 'demand' | 'prefetch' = 'demand') {
  const signal = AbortSignal.timeout(30_000);
  return chain.fetch(id, range, { urgency, signal, avoid: new Set(), progress: () => {} });
}

async function expectRight(chain: SourceChain, range: ByteRange, source?: string): Promise<void> {
  const fetched = await read(chain, range);
  expect(Buffer.from(fetched.bytes).equals(bytes.subarray(range.start, range.end))).toBe(true);
  if (source !== undefined) expect(fetched.source).toBe(source);
}

function chainOf(registry: Origin, options: Partial<RegistrySourceOptions> = {}): SourceChain {
  return registrySources({ registry: registry.url, repository: 'some/repo', peerSocket: false, ...options });
}

const anyRange = fc
  .tuple(fc.nat(BYTES - 1), fc.nat(BYTES - 1))
  .map(([a, b]) => ({ start: Math.min(a, b), end: Math.max(a, b) + 1 }));

describe('a registry', () => {
  test('that is real and wants a password gives exactly the bytes that were asked for', async () => {
    const user = { name: 'someone', password: 'secret' };
    await using registry = await Registry.start({ place: loopbackPlace(), user });
    const credentials = async () => ({ kind: 'password' as const, username: user.name, password: user.password });
    const client = new RegistryClient(registry.url, { credentials });
    await client.repository('some/repo').putBlob({ digest: `sha256:${id}`, size: BYTES, open: () => [bytes] });
    await using chain = registrySources({ registry: registry.url, repository: 'some/repo', credentials });
    await fc.assert(
      fc.asyncProperty(anyRange, (range) => expectRight(chain, range)),
      { numRuns: 30 },
    );
    await using stranger = registrySources({ registry: registry.url, repository: 'some/repo' });
    await expect(read(stranger, { start: 0, end: 1 })).rejects.toMatchObject({ code: 'unauthenticated' });
    const missing = chain.fetch(
      '0'.repeat(64),
      { start: 0, end: 1 },
      {
        urgency: 'demand',
        signal: AbortSignal.timeout(30_000),
        avoid: new Set(),
        progress: () => {},
      },
    );
    await expect(missing).rejects.toMatchObject({ code: 'not-found' });
  });

  test('whose tokens end in the middle of a life is asked on with new ones', async () => {
    await using origin = await Origin.start({ host: '127.0.0.1' });
    origin.serve(PATH, content, { tokenRequests: 3 });
    await using chain = chainOf(origin);
    for (let at = 0; at < 20; at++) await expectRight(chain, { start: at * 1000, end: at * 1000 + 1000 });
    await Promise.all([0, 1, 2, 3].map((at) => expectRight(chain, { start: at * 1000, end: at * 1000 + 1000 })));
    // One token for three reads, and one at most for each of those that came together.
    expect(origin.tokens).toBeGreaterThanOrEqual(8);
    expect(origin.tokens).toBeLessThanOrEqual(12);
  });

  test('that redirects is asked once, and again when the place is good no longer', async () => {
    await using store = await Origin.start({ host: '127.0.0.1' });
    await using origin = await Origin.start({ host: '127.0.0.1' });
    store.serve(PATH, content);
    origin.serve(PATH, content, { redirectFor: 600, redirectTo: store.url });
    await using chain = chainOf(origin);
    const began = monotonicNow();
    for (let at = 0; at < 5; at++) await expectRight(chain, { start: at * 7, end: at * 9 + 100 });
    if (monotonicNow() - began < 500) expect(origin.count(PATH).requests).toBe(1);
    expect(store.count(PATH).headers).not.toHaveProperty('authorization');
    while (monotonicNow() - began < 650) await new Promise((resolve) => setTimeout(resolve, 20));
    await expectRight(chain, { start: 5, end: 50 });
    expect(origin.count(PATH).requests).toBeGreaterThan(1);
  });

  test('that restarts costs time and no error', async () => {
    const first = await Origin.start({ host: '127.0.0.1' });
    const port = Number(new URL(first.url).port);
    first.serve(PATH, content);
    await using chain = chainOf(first);
    await expectRight(chain, { start: 0, end: 10 });
    await first[Symbol.asyncDispose]();
    const reading = expectRight(chain, { start: 10, end: 1000 });
    await using again = await Origin.start({ host: '127.0.0.1', port });
    again.serve(PATH, content);
    await reading;
  });

  test.each<[string, Oddities, 'right' | PantalaError['code']]>([
    ['ignores ranges', { noRanges: true }, 'right'],
    ['offers ranges and ignores them', { ignoresRange: true }, 'right'],
    ['sends chunks without a length', { chunked: true }, 'right'],
    ['breaks off once', { truncateAfter: 100, times: 1 }, 'right'],
    ['is out of order for a moment', { status: 503, times: 2 }, 'right'],
    ['limits requests', { status: 429, times: 1 }, 'right'],
    ['says another offset than it sends', { offsetError: 1, times: 1 }, 'right'],
    ['compresses what it sends', { gzip: true, times: 1 }, 'right'],
    ['forbids it', { status: 403 }, 'permission-denied'],
  ])('that %s', async (_what, oddities, expected) => {
    await using origin = await Origin.start({ host: '127.0.0.1' });
    origin.serve(PATH, content, oddities);
    await using chain = chainOf(origin);
    if (expected === 'right') await expectRight(chain, { start: 5000, end: 9000 });
    else await expect(read(chain, { start: 5000, end: 9000 })).rejects.toMatchObject({ code: expected });
  });
});

describe('a mirror', () => {
  const mirrorOf = (mirror: Origin, more: object = {}) => ({ mirrors: [{ host: mirror.url, ...more }] });

  test('is asked first, with its headers and what a Dragonfly proxy wants to know', async () => {
    await using origin = await Origin.start({ host: '127.0.0.1' });
    await using mirror = await Origin.start({ host: '127.0.0.1' });
    origin.serve(PATH, content);
    mirror.serve(PATH, content);
    const headers = { 'X-Dragonfly-Registry': 'https://registry.example' };
    await using chain = chainOf(origin, mirrorOf(mirror, { headers }));
    await expectRight(chain, { start: 1, end: 99 }, `mirror ${new URL(mirror.url).host}`);
    expect(mirror.count(PATH).headers).toMatchObject({
      'x-dragonfly-registry': 'https://registry.example',
      'x-dragonfly-use-p2p': 'true',
      'x-dragonfly-priority': '6',
      range: 'bytes=1-98',
    });
    expect(mirror.count(PATH).headers).not.toHaveProperty('x-dragonfly-prefetch');
    await read(chain, { start: 1, end: 99 }, 'prefetch');
    expect(mirror.count(PATH).headers).toMatchObject({ 'x-dragonfly-priority': '3', 'x-dragonfly-prefetch': 'false' });
    expect(origin.count(PATH).bytes).toBe(0);
  });

  test.each<[string, Oddities]>([
    ['does not have it', { status: 404 }],
    ['is out of order', { status: 502 }],
    ['wants credentials that nobody has', { status: 401 }],
    ['breaks off', { truncateAfter: 100 }],
    ['says another length', { lengthError: -3 }],
    ['says another offset', { offsetError: 4096 }],
    ['cannot give ranges', { unsatisfiable: true }],
  ])('that %s is followed by the registry', async (_what, oddities) => {
    await using origin = await Origin.start({ host: '127.0.0.1' });
    await using mirror = await Origin.start({ host: '127.0.0.1' });
    origin.serve(PATH, content);
    mirror.serve(PATH, content, oddities);
    await using chain = chainOf(origin, mirrorOf(mirror));
    await fc.assert(
      fc.asyncProperty(anyRange, (range) => expectRight(chain, range)),
      { numRuns: 10 },
    );
  });

  test('that is silent costs one reader half a second, the others nothing, and is asked again when it answers', async () => {
    await using origin = await Origin.start({ host: '127.0.0.1' });
    await using mirror = await Origin.start({ host: '127.0.0.1' });
    origin.serve(PATH, content);
    mirror.serve(PATH, content, { silent: true, times: 1 });
    mirror.serve('/ping', new Content(1, 'ping'));
    const name = `mirror ${new URL(mirror.url).host}`;
    const how = { pingUrl: `${mirror.url}/ping`, healthCheckInterval: 50 };
    await using chain = chainOf(origin, mirrorOf(mirror, how));
    const began = monotonicNow();
    await expectRight(chain, { start: 0, end: 1000 }, `registry ${new URL(origin.url).host}`);
    // Half a second on a quiet machine; a request alone would have waited ten.
    expect(monotonicNow() - began).toBeLessThan(4_000);
    await expectRight(chain, { start: 0, end: 1000 }, `registry ${new URL(origin.url).host}`);
    expect(mirror.count(PATH).requests).toBe(1);
    while ((await read(chain, { start: 0, end: 10 })).source !== name) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    expect(mirror.count('/ping').requests).toBeGreaterThan(0);
  });

  test('that fails as often as its limit is left alone until its ping is answered', async () => {
    await using origin = await Origin.start({ host: '127.0.0.1' });
    await using mirror = await Origin.start({ host: '127.0.0.1' });
    origin.serve(PATH, content);
    mirror.serve(PATH, content, { status: 500 });
    mirror.serve('/ping', new Content(1, 'ping'), { status: 500 });
    const how = { pingUrl: `${mirror.url}/ping`, healthCheckInterval: 30, failureLimit: 3 };
    await using chain = chainOf(origin, mirrorOf(mirror, how));
    for (let at = 0; at < 10; at++) await expectRight(chain, { start: at, end: 100 });
    expect(mirror.count(PATH).requests).toBe(3);
    mirror.serve(PATH, content);
    mirror.serve('/ping', new Content(1, 'ping'));
    while ((await read(chain, { start: 0, end: 10 })).source.startsWith('registry')) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  });

  test('sees the token of the registry and nothing of how it was had, unless authorization goes through it', async () => {
    await using origin = await Origin.start({ host: '127.0.0.1' });
    await using mirror = await Origin.start({ host: '127.0.0.1' });
    origin.serve(PATH, content, { tokenRequests: 1000 });
    mirror.serve(PATH, content);
    await using chain = chainOf(origin, mirrorOf(mirror));
    for (let at = 0; at < 3; at++) await expectRight(chain, { start: at, end: 100 });
    expect(mirror.count(PATH).requests).toBe(3);
    expect(mirror.count(PATH).headers.authorization).toBe('Bearer t1');
    expect(origin.count(PATH).bytes).toBe(0);

    mirror.serve(PATH, content, { tokenRequests: 1000 });
    await using through = chainOf(origin, mirrorOf(mirror, { authThrough: true }));
    await expectRight(through, { start: 5, end: 100 });
    expect([origin.tokens, mirror.tokens]).toEqual([1, 1]);
  });

  test("that refuses the registry's token gets a new one, or is passed by", async () => {
    await using origin = await Origin.start({ host: '127.0.0.1' });
    await using mirror = await Origin.start({ host: '127.0.0.1' });
    origin.serve(PATH, content, { tokenRequests: 2 });
    mirror.serve(PATH, content, { status: 401 });
    await using chain = chainOf(origin, mirrorOf(mirror));
    for (let at = 0; at < 6; at++) await expectRight(chain, { start: at, end: 100 });
  });
});

test('a proxy is told the whole URL, and fetches', async () => {
  await using origin = await Origin.start({ host: '127.0.0.1' });
  await using proxy = await Origin.start({ host: '127.0.0.1' });
  proxy.serve(PATH, content);
  origin.serve(PATH, content);
  await using chain = chainOf(origin, { proxy: { url: proxy.url } });
  await expectRight(chain, { start: 10, end: 100 }, `proxy ${new URL(proxy.url).host}`);
  expect(proxy.count(PATH).headers.host).toBe(new URL(origin.url).host);
  await proxy[Symbol.asyncDispose]();
  await expectRight(chain, { start: 10, end: 100 }, `registry ${new URL(origin.url).host}`);
});

test("the peer's socket comes first, is told the registry, and may be absent", async () => {
  await using scratch = Scratch.create('peer');
  await using origin = await Origin.start({ host: '127.0.0.1' });
  origin.serve(PATH, content);
  const peerSocket = scratch.join('peer.sock');
  await using chain = chainOf(origin, { peerSocket });
  await expectRight(chain, { start: 0, end: 10 }, `registry ${new URL(origin.url).host}`);
  const seen: (string | undefined)[] = [];
  await using server = createServer((req, res) => {
    seen.push(req.url, String(req.headers['x-dragonfly-registry']));
    const [, start, end] = /bytes=(\d+)-(\d+)/.exec(req.headers.range ?? '') ?? [];
    const range = { start: Number(start), end: Number(end) + 1 };
    res.writeHead(206, { 'content-range': `bytes ${start}-${end}/${BYTES}` });
    res.end(bytes.subarray(range.start, range.end));
  });
  await new Promise<void>((resolve) => server.listen(peerSocket, resolve));
  await expectRight(chain, { start: 100, end: 5000 }, 'peer');
  expect(seen).toEqual([PATH, origin.url]);
  server.closeAllConnections();
});

test('a peer finds out about a blob before it is read; nobody else is asked, and a peer that is gone is no failure', async () => {
  await using scratch = Scratch.create('prepare');
  await using origin = await Origin.start({ host: '127.0.0.1' });
  origin.serve(PATH, content);
  const { signal } = new AbortController();
  await using alone = chainOf(origin);
  await alone.prepare(id, signal);
  const peerSocket = scratch.join('peer.sock');
  await using chain = chainOf(origin, { peerSocket });
  await chain.prepare(id, signal);
  const asked: unknown[] = [];
  await using server = createServer((req, res) => {
    asked.push([req.url, req.headers.range]);
    res.writeHead(206, { 'content-range': `bytes 0-0/${BYTES}` }).end(bytes.subarray(0, 1));
  });
  await new Promise<void>((resolve) => server.listen(peerSocket, resolve));
  await chain.prepare(id, signal);
  expect(asked).toEqual([[PATH, 'bytes=0-0']]);
  expect(origin.count(PATH).requests).toBe(0);
  server.closeAllConnections();
});

test('folders are read when they are configured, and nothing else is', async () => {
  await using scratch = Scratch.create('local');
  for (const name of ['one', 'two']) mkdirSync(scratch.join(name));
  writeFileSync(scratch.join('two', id), bytes);
  await using chain = localSources({ directories: [scratch.join('one'), scratch.join('two')] });
  await fc.assert(
    fc.asyncProperty(anyRange, (range) => expectRight(chain, range, 'localfs')),
    { numRuns: 20 },
  );
  await using file = localSources({ directories: [], file: scratch.join('two', id) });
  await expectRight(file, { start: 3, end: 4 });
  await using empty = localSources({ directories: [scratch.join('one')] });
  await expect(read(empty, { start: 0, end: 1 })).rejects.toMatchObject({ code: 'not-found' });
  expect(() => localSources({ directories: [] })).toThrow('directory of blobs');
});

test('a read ends with its deadline, whatever the sources do', async () => {
  await using origin = await Origin.start({ host: '127.0.0.1' });
  origin.serve(PATH, content, { silent: true });
  await using chain = chainOf(origin, { mirrors: [{ host: origin.url }] });
  const asked = chain.fetch(
    id,
    { start: 0, end: 10 },
    {
      urgency: 'demand',
      signal: AbortSignal.timeout(700),
      avoid: new Set(),
      progress: () => {},
    },
  );
  await expect(asked).rejects.toMatchObject({ code: 'deadline-exceeded' });
});
