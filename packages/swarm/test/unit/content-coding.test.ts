import { createHash } from 'node:crypto';
import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { bytesAsTheyAre, Content, Origin } from '@pantala/testkit';
import { expect, test } from 'vitest';
import { Node, readRange } from '../support/node.ts';

const CONTENT = new Content(3_000_017, 'coding').slice(0, 3_000_017);
const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
const blob = (digest: string) => `/v2/x/blobs/sha256:${digest}`;

test('what an origin encodes unasked is kept as it was sent, and says so', async () => {
  await using origin = await Origin.start({ host: '127.0.0.1' });
  await using node = await Node.start({ name: 'as-sent' });
  const url = origin.serve(
    '/file',
    bytesAsTheyAre(gzipSync(CONTENT)),
    { noRanges: true },
    { 'content-encoding': 'gzip' },
  );
  const { task, sha256: read } = await node.read({ url });
  expect(read).toBe(sha256(gzipSync(CONTENT)));
  expect(task.responseHeaders['content-encoding']).toBe('gzip');
});

test('one that stores it encoded answers ranges like any other', async () => {
  await using origin = await Origin.start({ host: '127.0.0.1' });
  await using node = await Node.start({ name: 'stored' });
  const stored = gzipSync(CONTENT);
  const url = origin.serve('/file', bytesAsTheyAre(stored), {}, { 'content-encoding': 'gzip' });
  const range = { start: 1_000_000, end: 1_050_000 };
  expect((await node.read({ url }, range)).sha256).toBe(sha256(stored.subarray(range.start, range.end)));
  expect(origin.count('/file').bytes).toBeLessThanOrEqual(100_000);
});

test('one that stores a blob encoded is asked for all of it, as its digest may be of what is encoded', async () => {
  await using origin = await Origin.start({ host: '127.0.0.1' });
  await using node = await Node.start({ name: 'stored-blob' });
  const path = blob(sha256(CONTENT));
  const url = origin.serve(path, bytesAsTheyAre(gzipSync(CONTENT)), {}, { 'content-encoding': 'gzip' });
  expect((await node.read({ url }, { start: 5, end: 5000 })).sha256).toBe(sha256(CONTENT.subarray(5, 5000)));
  expect((await node.read({ url })).sha256).toBe(sha256(CONTENT));
  expect(origin.count(path).wholeBodies).toBe(1);
});

test.each([
  ['gzip', gzipSync(CONTENT)],
  ['X-Gzip', gzipSync(CONTENT)],
  ['deflate', deflateSync(CONTENT)],
  ['br', brotliCompressSync(CONTENT)],
  ['zstd', zstdCompressSync(CONTENT)],
])('a blob sent in %s is what its digest says', async (coding, sent) => {
  await using origin = await Origin.start({ host: '127.0.0.1' });
  await using node = await Node.start({ name: 'blob' });
  for (const [digest, length] of [
    [sha256(CONTENT), CONTENT.length],
    [sha256(sent), sent.length],
  ] as const) {
    const url = origin.serve(blob(digest), bytesAsTheyAre(sent), { noRanges: true }, { 'content-encoding': coding });
    const { task, sha256: read } = await node.read({ url });
    expect(read).toBe(digest);
    expect(task.responseHeaders).not.toHaveProperty('content-encoding');
    expect(task.task.geometry.contentLength).toBe(length);
    const range = { start: 99, end: 2_000_000 };
    expect((await readRange(task, range, AbortSignal.timeout(20_000))).bytes).toBe(range.end - range.start);
  }
});

test.each([
  ['of another content', 'gzip', gzipSync(Buffer.from('another')), /with or without its content coding gzip.*digest/],
  ['that is not in its coding', 'gzip', Buffer.from('no gzip at all'), /not in its content coding gzip/],
  ['in an unknown coding', 'lzw', Buffer.from('whatever'), /encodes with "lzw".*known are gzip/],
])('a blob %s is an error that says so, and the origin is asked once', async (_what, coding, sent, message) => {
  await using origin = await Origin.start({ host: '127.0.0.1' });
  await using node = await Node.start({ name: 'bad-blob' });
  const path = blob(sha256(CONTENT));
  const url = origin.serve(path, bytesAsTheyAre(sent), { noRanges: true }, { 'content-encoding': coding });
  await expect(node.read({ url })).rejects.toThrow(message);
  expect(origin.count(path).requests).toBe(2);
});
