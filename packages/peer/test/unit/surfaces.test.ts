import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient, dfdaemonV2, durationFromMs, healthV1, pantalaV1, type Sent } from '@pantala/api';
import { Content, Origin, Scratch, until } from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { counted, type TestPeer, testPeer } from '../support.ts';

const MIB = 1024 * 1024;
const LENGTH = 9 * MIB + 123;

let scratch: Scratch;
let origin: Origin;
let peer: TestPeer;
let files = 0;

beforeAll(async () => {
  scratch = Scratch.create('surfaces');
  origin = await Origin.start({ host: '127.0.0.1' });
  peer = await testPeer({ name: 'one', directory: scratch.path });
});
afterAll(async () => {
  await peer[Symbol.asyncDispose]();
  await origin[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

const local = () => createClient(dfdaemonV2.DfdaemonDownload, { path: peer.peer.socketPath });
const upload = () => createClient(dfdaemonV2.DfdaemonUpload, peer.peer.addresses.grpc);
const outputPath = () => join(scratch.path, `output-${++files}`);

/** New content at the origin. */
function served(length = LENGTH) {
  const content = new Content(length, `file ${++files}`);
  return { content, url: origin.serve(`/file-${files}`, content) };
}

type Download = NonNullable<Sent<typeof dfdaemonV2.DownloadTaskRequestSchema>['download']>;

async function download(
  order: Download,
  client: Pick<ReturnType<typeof local>, 'downloadTask'> & Disposable = local(),
) {
  using own = client;
  const responses = [];
  for await (const response of own.downloadTask({ download: order })) responses.push(response);
  return responses;
}

const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex');

describe('the local socket', () => {
  test('is for the owner and the group', async () => {
    expect((await stat(peer.peer.socketPath)).mode & 0o777).toBe(0o660);
  });

  test('writes a file, tells the start and each piece', async () => {
    const { content, url } = served();
    const path = outputPath();
    const [started, ...pieces] = await download({ url, outputPath: path });
    expect(started?.response).toMatchObject({
      case: 'downloadTaskStartedResponse',
      value: { contentLength: BigInt(LENGTH), isFinished: false },
    });
    const numbers = pieces.map(({ response }) =>
      response.case === 'downloadPieceFinishedResponse' ? response.value.piece?.number : undefined,
    );
    expect(numbers).toEqual([0, 1, 2]);
    expect(sha256(await readFile(path))).toBe(content.sha256);
  });

  test.each([
    ['empty', 0, {}],
    ['chunked without a length', LENGTH, { chunked: true }],
    ['without ranges', LENGTH, { noRanges: true }],
  ])('content that is %s', async (_, length, oddities) => {
    const content = new Content(length, `odd ${++files}`);
    const path = outputPath();
    await download({ url: origin.serve(`/odd-${files}`, content, oddities), outputPath: path });
    expect(sha256(await readFile(path))).toBe(content.sha256);
  });

  test('our own listeners are no origins', async () => {
    const { health } = peer.peer.addresses;
    await expect(download({ url: `http://127.0.0.1:${health.port}/healthy` })).rejects.toMatchObject({
      code: 'permission-denied',
    });
  });

  test('the line of the log has the trace of the call', async () => {
    const { content, url } = served();
    const trace = content.sha256.slice(0, 32);
    using client = local();
    const metadata = { traceparent: `00-${trace}-0000000000000001-01` };
    for await (const _ of client.downloadTask({ download: { url } }, { metadata }));
    await until(async () => (await readFile(peer.logFile, 'utf8')).includes(`"trace":"${trace}"`), {
      what: 'the line of the log',
    });
  });

  test('a second order is a hit', async () => {
    const { url } = served();
    await download({ url });
    const [started] = await download({ url });
    expect(started?.response.value).toMatchObject({ isFinished: true });
  });

  test('sends the content itself in parts that every client takes', async () => {
    const { content, url } = served();
    const hash = createHash('sha256');
    let at = 0n;
    for (const { response } of await download({ url, needPieceContent: true })) {
      if (response.case !== 'downloadPieceFinishedResponse') continue;
      const { piece } = response.value;
      expect(piece?.offset).toBe(at);
      at += piece?.length ?? 0n;
      expect(piece?.content?.length).toBeLessThanOrEqual(MIB);
      hash.update(piece?.content ?? Buffer.alloc(0));
    }
    expect(hash.digest('hex')).toBe(content.sha256);
  });

  test('a range is written and told alone', async () => {
    const { content, url } = served();
    const path = outputPath();
    await download({ url, outputPath: path, range: { start: 5_000_000n, length: 70_000n } });
    expect(sha256(await readFile(path))).toBe(content.sha256Of(5_000_000, 5_070_000));
    await expect(download({ url, range: { start: BigInt(LENGTH), length: 1n } })).rejects.toMatchObject({
      code: 'out-of-range',
    });
  });

  test('an existing file stays unless it may be overwritten', async () => {
    const { content, url } = served();
    const path = outputPath();
    await writeFile(path, 'mine');
    await expect(download({ url, outputPath: path })).rejects.toMatchObject({ code: 'already-exists' });
    expect(await readFile(path, 'utf8')).toBe('mine');
    await download({ url, outputPath: path, overwrite: true });
    expect(sha256(await readFile(path))).toBe(content.sha256);
    await expect(download({ url, outputPath: 'relative' })).rejects.toMatchObject({ code: 'invalid-argument' });
    await expect(download({ url, outputPath: scratch.path, overwrite: true })).rejects.toThrow('is a directory');
  });

  test('a hard link is made only where it is asked for', async () => {
    const { content, url } = served();
    const [copy, link] = [outputPath(), outputPath()];
    await download({ url, outputPath: copy });
    await download({ url, outputPath: link, forceHardLink: true });
    expect((await stat(copy)).nlink).toBe(1);
    expect((await stat(link)).nlink).toBe(2);
    expect(sha256(await readFile(link))).toBe(content.sha256);
  });

  test('content with another digest than the order names is an error and no file', async () => {
    const { content, url } = served();
    const path = outputPath();
    const md5 = createHash('md5').update(content.slice(0, LENGTH)).digest('hex');
    await download({ url, outputPath: path, digest: `md5:${md5}` });
    const other = outputPath();
    await expect(download({ url, outputPath: other, digest: `md5:${'0'.repeat(32)}` })).rejects.toMatchObject({
      code: 'data-loss',
    });
    expect(existsSync(other)).toBe(false);
    await expect(download({ url, digest: 'sha256:xyz' })).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  test('an order that takes too long ends as it was told', async () => {
    const content = new Content(LENGTH, 'silent');
    const url = origin.serve('/silent', content, { silent: true });
    await expect(download({ url, timeout: durationFromMs(100) })).rejects.toMatchObject({
      code: 'deadline-exceeded',
    });
  });

  test('what the origin refuses comes with its status', async () => {
    const url = origin.serve('/refused', new Content(10, 'refused'), { status: 403 });
    await expect(download({ url })).rejects.toMatchObject({ code: 'origin', details: { status: 403 } });
  });

  test('lists, tells and deletes what is held', async () => {
    const { url } = served();
    const responses = await download({ url });
    const taskId = responses[0]?.taskId ?? '';
    using client = local();
    const listed = await client.listLocalTasks({});
    expect(listed.tasks.map((task) => task.taskId)).toContain(taskId);
    const stat = await client.statLocalTask({ taskId });
    expect(stat).toMatchObject({ contentLength: BigInt(LENGTH), pieceLength: BigInt(4 * MIB) });
    expect(stat.finishedAt).toBeDefined();
    await client.deleteLocalTask({ taskId });
    await expect(client.statLocalTask({ taskId })).rejects.toMatchObject({ code: 'not-found' });
    await expect(client.deleteTask({ taskId })).rejects.toMatchObject({ code: 'not-found' });
    await expect(client.statLocalTask({ taskId: '../../etc/passwd' })).rejects.toMatchObject({ code: 'not-found' });
  });

  test('other schemes, object stores and kinds of tasks are refused in words', async () => {
    await expect(download({ url: 's3://bucket/key' })).rejects.toThrow(/http/);
    await expect(download({ url: 's3://bucket/key', objectStorage: {} })).rejects.toMatchObject({
      code: 'unimplemented',
    });
    using client = local();
    await expect(client.statPersistentTask({ taskId: 'a' })).rejects.toMatchObject({ code: 'unimplemented' });
    await expect(client.listTaskEntries({ url: 'http://x/' })).rejects.toThrow('directories');
  });
});

describe('the upload port', () => {
  test('never writes a file for others', async () => {
    const { url } = served();
    const path = outputPath();
    await download({ url, outputPath: path, needPieceContent: true }, upload());
    expect(existsSync(path)).toBe(false);
  });

  test('tells pieces that are held, and those that land later', async () => {
    const { content, url } = served();
    const slow = origin.serve('/slow', content, { bytesPerSecond: 8 * MIB });
    using client = upload();
    const downloading = download({ url: slow }, upload());
    const taskId = await taskOf(slow);
    const told: number[] = [];
    for await (const piece of client.syncPieces({ taskId, interestedPieceNumbers: [2, 0, 1] })) {
      expect(piece).toMatchObject({ ip: '127.0.0.1', tcpPort: peer.peer.addresses.pieces.port });
      told.push(piece.number);
    }
    expect(told.toSorted((a, b) => a - b)).toEqual([0, 1, 2]);
    await downloading;
    await download({ url }, upload());
    const held: number[] = [];
    for await (const piece of client.syncPieces({ taskId, interestedPieceNumbers: [1] })) held.push(piece.number);
    expect(held).toEqual([1]);
  });

  test('a piece of which a part is held is not told', async () => {
    const { url } = served();
    await download({ url, range: { start: 0n, length: 100n } });
    const taskId = await taskOf(url);
    using client = upload();
    const news = client.syncPieces({ taskId, interestedPieceNumbers: [0] }, { deadline: 300 });
    await expect(news.next()).rejects.toMatchObject({ code: 'deadline-exceeded' });
    await expect(client.syncPieces({ taskId, interestedPieceNumbers: [9] }).next()).rejects.toMatchObject({
      code: 'invalid-argument',
    });
    await expect(
      client.syncPieces({ taskId: 'f'.repeat(64), interestedPieceNumbers: [0] }).next(),
    ).rejects.toMatchObject({ code: 'not-found' });
  });

  test('tells the load of the network again and again', async () => {
    using client = upload();
    const told = [];
    for await (const { network } of client.syncHost({ hostId: 'x', peerId: 'y' })) {
      told.push(network?.maxTxBandwidth);
      if (told.length === 2) break;
    }
    expect(told[0]).toBeGreaterThan(0n);
  });

  test('what is not served is refused, not a crash', async () => {
    using client = upload();
    await expect(client.statCacheTask({ taskId: 'a' })).rejects.toMatchObject({ code: 'unimplemented' });
    await expect(client.downloadCachePiece({ taskId: 'a' })).rejects.toMatchObject({ code: 'unimplemented' });
    await expect(client.exchangeIBVerbsQueuePairEndpoint({})).rejects.toMatchObject({ code: 'unimplemented' });
    using health = createClient(healthV1.Health, peer.peer.addresses.grpc);
    expect((await health.check({})).status).toBe(1);
  });

  test('says what it is to peers of its kind, and opens nothing for them unless it is a seed', async () => {
    using client = createClient(pantalaV1.Peer, peer.peer.addresses.grpc);
    expect(await client.describe({})).toMatchObject({
      tcpPort: peer.peer.addresses.pieces.port,
      seed: false,
      hostId: '127.0.0.1-one',
    });
    await expect(client.openTask({ url: served().url })).rejects.toMatchObject({ code: 'failed-precondition' });
  });
});

test('a peer that shares nothing tells nobody what it holds', async () => {
  await using alone = await testPeer({
    name: 'alone',
    directory: scratch.path,
    change: (config) => ({ ...config, upload: { ...config.upload, disabled: true } }),
  });
  const { url } = served();
  using client = createClient(dfdaemonV2.DfdaemonDownload, { path: alone.peer.socketPath });
  const [first] = await download({ url }, client);
  using upload = createClient(dfdaemonV2.DfdaemonUpload, alone.peer.addresses.grpc);
  using own = createClient(pantalaV1.Peer, alone.peer.addresses.grpc);
  const taskId = first?.taskId ?? '';
  for (const news of [upload.syncPieces({ taskId, interestedPieceNumbers: [0] }), own.watchTask({ taskId })]) {
    await expect(news.next()).rejects.toMatchObject({ code: 'not-found' });
  }
});

test('health, metrics of both generations', async () => {
  const { health, metrics } = peer.peer.addresses;
  expect((await fetch(`http://127.0.0.1:${health.port}/healthy`)).status).toBe(200);
  const text = await (await fetch(`http://127.0.0.1:${metrics?.port}/metrics`)).text();
  expect(text).toContain('dragonfly_client_version{');
  expect(text).toContain('dragonfly_client_disk_space_total');
  const today = await counted(peer.metrics, 'dragonfly_client_download_task_total');
  expect(today).toBeGreaterThan(0);
  expect(await counted(peer.metrics, 'dragonfly_dfdaemon_peer_task_total')).toBe(today);
  const names = [...text.matchAll(/^# TYPE dragonfly_client_(\S+)/gm)].map(([, name]) => name);
  expect(names).toEqual(expect.arrayContaining(TODAYS_METRICS));
});

/** Of upstream's names without `dragonfly_client_`: all but those of persistent tasks and block lists. */
const TODAYS_METRICS = [
  ...`upload_task download_task prefetch_task backend_request proxy_request stat_task stat_local_task list_task_entries
  delete_task delete_local_task delete_host`
    .split(/\s+/)
    .flatMap((name) => [`${name}_total`, `${name}_failure_total`]),
  ...`version concurrent_upload_task_total concurrent_download_task_total concurrent_upload_piece_total
  upload_task_duration_milliseconds download_task_duration_milliseconds download_traffic upload_traffic
  backend_request_duration_milliseconds proxy_request_via_dfdaemon_total list_local_tasks_total
  list_tasks_failure_total disk_space_total disk_usage_space_total`.split(/\s+/),
];

test('what failed is counted as a failure, and prefetches by themselves', async () => {
  using local = createClient(dfdaemonV2.DfdaemonDownload, { path: peer.peer.socketPath });
  const count = (name: string) => counted(peer.metrics, `dragonfly_client_${name}`);
  const before = await count('stat_local_task_failure_total');
  await expect(local.statLocalTask({ taskId: 'f'.repeat(64) })).rejects.toMatchObject({ code: 'not-found' });
  expect(await count('stat_local_task_failure_total')).toBe(before + 1);
  const prefetches = await count('prefetch_task_total');
  const { url } = served();
  await download({ url, prefetch: true, range: { start: 0n, length: 10n } });
  expect(await count('prefetch_task_total')).toBe(prefetches + 1);
});

/** The id of a task that is being downloaded. */
async function taskOf(url: string): Promise<string> {
  using store = createClient(pantalaV1.LocalStore, { path: peer.peer.socketPath });
  return await until(
    async () => {
      for await (const task of store.listTasks({})) if (task.url === url) return task.taskId;
      return undefined;
    },
    { what: `a task of ${url}` },
  );
}
