import { createHash, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { ask, Content, loopbackPlace, type Node, type Oddities, Origin } from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { copies, MIB, Stage } from './lib/stage.ts';

let stage: Stage;
beforeAll(async () => {
  stage = await Stage.start();
});
afterAll(async () => stage[Symbol.asyncDispose]());

/** Origins that are odd but honest: whoever asks gets the right bytes, and the origin gave them once. */
const HONEST: readonly { readonly name: string; readonly oddities: Oddities; readonly copies?: number }[] = [
  { name: 'no ranges', oddities: { noRanges: true } },
  { name: 'offers ranges and ignores them', oddities: { ignoresRange: true }, copies: 2 },
  { name: 'chunked without a length', oddities: { chunked: true }, copies: 2 },
  { name: 'HTTP/1.0 without a length', oddities: { http10: true }, copies: 2 },
  { name: 'redirects with 307', oddities: { redirectFor: 60_000 } },
  { name: 'refuses HEAD', oddities: { noHead: true } },
  { name: 'answers 503 first', oddities: { status: 503, times: 1 }, copies: 2 },
  { name: 'breaks off a body first', oddities: { truncateAfter: 3 * MIB, times: 1 }, copies: 2 },
  { name: 'tells too great a length first', oddities: { lengthError: 1000, truncateAfter: MIB, times: 1 }, copies: 2 },
  { name: 'refuses ranges first', oddities: { unsatisfiable: true, times: 1 }, copies: 2 },
];

describe.each(HONEST)('an origin that $name', ({ oddities, copies = 1 }) => {
  test('gives the right bytes to every peer', async () => {
    const { url, content, path } = stage.serveBlob(9 * MIB + 12_345, oddities);
    const answers = await Promise.all(stage.swarm.peers.map((peer) => stage.fetch(peer, url)));
    for (const answer of answers) {
      // A first failure may reach those who asked first, as it would without us; wrong bytes may not.
      if (oddities.times === undefined) expect(answer.status).toBe(200);
      if (answer.status === 200 && answer.whole) expect(answer.sha256).toBe(content.sha256);
    }
    for (const peer of stage.swarm.peers) {
      const again = await stage.fetch(peer, url);
      expect(again).toMatchObject({ status: 200, whole: true, sha256: content.sha256 });
    }
    // Of a body that was broken off the origin has sent more than arrived: what counts is how often it was read whole.
    expect(stage.origin.count(path).wholeBodies).toBeLessThanOrEqual(copies);
  });

  test('gives the right bytes of a range', async () => {
    const { url, content } = stage.serveBlob(9 * MIB, oddities);
    const headers = { range: 'bytes=5000000-5099999' };
    const first = await stage.fetch(stage.swarm.peer, url, { headers });
    const answer = first.status === 206 ? first : await stage.fetch(stage.swarm.peer, url, { headers });
    expect(answer).toMatchObject({ status: 206, sha256: content.sha256Of(5_000_000, 5_100_000) });
  });
});

/** Origins that lie: an error or an aborted body, never wrong bytes that look right, never a hang. */
const LIARS: readonly { readonly name: string; readonly oddities: Oddities }[] = [
  { name: 'always breaks off', oddities: { truncateAfter: 2 * MIB } },
  { name: 'tells wrong offsets', oddities: { offsetError: 100 } },
  { name: 'tells too small a length', oddities: { lengthError: -1000 } },
  { name: 'tells too great a length', oddities: { lengthError: 1000 } },
];

describe.each(LIARS)('an origin that $name', ({ oddities }) => {
  test('never makes wrong bytes look right', async () => {
    const { url, content } = stage.serveBlob(9 * MIB, oddities);
    for (const peer of stage.swarm.peers) {
      const answer = await stage.fetch(peer, url);
      if (answer.status === 200 && answer.whole && answer.headers['content-encoding'] === undefined) {
        expect(answer.sha256).toBe(content.sha256);
      }
      const ranged = await stage.fetch(peer, url, { headers: { range: 'bytes=4000000-4099999' } });
      if (ranged.status === 206 && ranged.whole && ranged.headers['content-encoding'] === undefined)
        expect(ranged.sha256).toBe(content.sha256Of(4_000_000, 4_100_000));
    }
  });
});

describe('an origin that encodes although it is asked not to', () => {
  const LENGTH = 9 * MIB;

  test('is served as it answers, and the header says so', async () => {
    const { url, content } = stage.serve(LENGTH, { gzip: true });
    for (const peer of stage.swarm.peers) {
      const output = stage.scratch.join(randomUUID());
      // As a browser asks.
      const headers = { 'accept-encoding': 'gzip, deflate, br, zstd' };
      const answer = await stage.fetch(peer, url, { headers, output });
      expect(answer).toMatchObject({ status: 200, whole: true });
      expect(answer.headers['content-encoding']).toBe('gzip');
      const sent = readFileSync(output);
      expect(createHash('sha256').update(gunzipSync(sent)).digest('hex')).toBe(content.sha256);
      const part = await stage.fetch(peer, url, { headers: { range: 'bytes=4000000-4099999' } });
      expect(part.headers['content-encoding']).toBe('gzip');
      expect(part.sha256).toBe(createHash('sha256').update(sent.subarray(4_000_000, 4_100_000)).digest('hex'));
    }
    const { output } = await stage.get(stage.swarm.peer, url);
    expect(
      createHash('sha256')
        .update(gunzipSync(readFileSync(output)))
        .digest('hex'),
    ).toBe(content.sha256);
  });

  test('is decoded where a blob’s digest is of what it encodes', async () => {
    const { url, content } = stage.serveBlob(LENGTH, { gzip: true });
    for (const peer of stage.swarm.peers) {
      const answer = await stage.fetch(peer, url);
      expect(answer).toMatchObject({ status: 200, whole: true, sha256: content.sha256 });
      expect(answer.headers).not.toHaveProperty('content-encoding');
      const part = await stage.fetch(peer, url, { headers: { range: 'bytes=4000000-4099999' } });
      expect(part).toMatchObject({ status: 206, sha256: content.sha256Of(4_000_000, 4_100_000) });
    }
  });

  test('goes through the swarm where it is stored so, and the origin gives one copy', async () => {
    const served = stage.serve(LENGTH, {}, { 'content-encoding': 'gzip' });
    const answers = await Promise.all(stage.swarm.peers.map((peer) => stage.fetch(peer, served.url)));
    for (const answer of answers) {
      expect(answer).toMatchObject({ status: 200, whole: true, sha256: served.content.sha256 });
      expect(answer.headers['content-encoding']).toBe('gzip');
    }
    expect(copies(stage, served)).toBeLessThanOrEqual(1.02);
  });

  test('has the client told at once when a blob’s digest is of neither', async () => {
    const { url, path } = stage.serveBlob(LENGTH);
    stage.origin.serve(path, new Content(LENGTH, 'something else'), { gzip: true });
    const answer = await stage.fetch(stage.swarm.peer, url);
    expect(answer.status).toBeGreaterThanOrEqual(500);
    expect(answer.beginning.toString()).toMatch(/with or without its content coding gzip.*does not have the digest/);
    expect(stage.origin.count(path).requests).toBeLessThanOrEqual(2);
  });
});

test('an origin without a length that gives other bytes than the blob’s digest promises', async () => {
  const { url, path, content } = stage.serveBlob(9 * MIB, { chunked: true });
  stage.origin.serve(path, new Content(9 * MIB, 'something else'), { chunked: true });
  for (const peer of stage.swarm.peers) {
    const answer = await stage.fetch(peer, url);
    expect(answer.status === 200 && answer.whole).toBe(false);
  }
  stage.origin.serve(path, content, { chunked: true });
  for (const peer of stage.swarm.peers) {
    expect(await stage.fetch(peer, url)).toMatchObject({ status: 200, whole: true, sha256: content.sha256 });
  }
});

test('a redirect that has expired is asked for anew', async () => {
  const { url, content } = stage.serve(6 * MIB, { redirectFor: 300 });
  const { peer } = stage.swarm;
  const part = (start: number) => stage.fetch(peer, url, { headers: { range: `bytes=${start}-${start + 999}` } });
  expect((await part(0)).sha256).toBe(content.sha256Of(0, 1000));
  const late = Date.now() + 400;
  while (Date.now() < late) await part(0);
  expect(await part(5_000_000)).toMatchObject({ status: 206, sha256: content.sha256Of(5_000_000, 5_001_000) });
});

test('the target of a redirect is remembered', async () => {
  await using store = await Origin.start({ host: loopbackPlace().address });
  const { url, path, content } = stage.serve(12 * MIB, { redirectFor: 60_000, redirectTo: store.url });
  store.serve(path, content);
  const ranges = 10;
  for (let number = 0; number < ranges; number++) {
    const start = number * MIB;
    const headers = { range: `bytes=${start}-${start + 999}` };
    const answer = await stage.fetch(stage.swarm.peer, url, { headers });
    expect(answer).toMatchObject({ status: 206, sha256: content.sha256Of(start, start + 1000) });
  }
  // Peer and seed each learn once where it is; the ranges themselves go to the target at once.
  expect(stage.origin.count(path).requests).toBeLessThanOrEqual(4);
  expect(store.count(path).requests).toBeGreaterThanOrEqual(ranges);
});

test('429 is answered with its status or waited out', async () => {
  const { url, content } = stage.serve(2 * MIB, { status: 429, times: 1 });
  const { peer } = stage.swarm;
  const first = await stage.fetch(peer, url);
  const answer = first.status === 429 ? await stage.fetch(peer, url) : first;
  expect(answer).toMatchObject({ status: 200, sha256: content.sha256 });
});

describe('a token that expires in the middle', () => {
  /** Not through a proxy, which would keep the first one. */
  async function token(): Promise<string> {
    const { beginning } = await ask(`${stage.origin.url}/token`);
    return `Bearer ${(JSON.parse(beginning.toString()) as { token: string }).token}`;
  }

  test('a new one goes on where the old one ended', async () => {
    const { url, content } = stage.serve(20 * MIB, { tokenRequests: 8 });
    const { peer } = stage.swarm;
    let authorization = await token();
    let renewed = 0;
    for (let start = 0; start < content.length; start += 2 * MIB) {
      const part = () =>
        stage.fetch(peer, url, { headers: { authorization, range: `bytes=${start}-${start + 99_999}` } });
      let answer = await part();
      if (answer.status === 401) {
        authorization = await token();
        renewed++;
        answer = await part();
      }
      expect(answer).toMatchObject({ status: 206, sha256: content.sha256Of(start, start + 100_000) });
    }
    expect(renewed).toBeGreaterThanOrEqual(1);
  });

  test('another reader, at another peer, does not meet it', async () => {
    const { url, content } = stage.serve(20 * MIB, { tokenRequests: 8 });
    const [first, second] = stage.swarm.peers;
    if (first === undefined || second === undefined) throw new Error('two peers are needed');
    const spent = await token();
    const part = (node: Node, authorization: string, start: number) =>
      stage.fetch(node, url, { headers: { authorization, range: `bytes=${start}-${start + 99_999}` } });
    let at = 0;
    while ((await part(first, spent, at)).status !== 401) at += 1_000_000;
    for (const node of [second, first]) {
      const good = await token();
      at += 1_000_000;
      expect(await part(node, good, at)).toMatchObject({ status: 206, sha256: content.sha256Of(at, at + 100_000) });
      // Who comes with the spent one meanwhile spoils nothing.
      const [, fresh] = await Promise.all([part(node, spent, at + 1_000_000), part(node, good, at + 2_000_000)]);
      expect(fresh).toMatchObject({ status: 206, sha256: content.sha256Of(at + 2_000_000, at + 2_100_000) });
      at += 2_000_000;
    }
  });
});
