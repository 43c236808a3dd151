import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect } from 'node:net';
import { formatContentRange, PantalaError } from '@pantala/base';
import { describe, expect, test } from 'vitest';
import { ask } from '../support/client.ts';
import { serveContent, startOrigin } from '../support/origin.ts';
import { startRig } from '../support/rig.ts';
import { waitFor } from '../support/wait.ts';

const content = randomBytes(1_500_000);
const lastModified = 'Wed, 21 Oct 2015 07:28:00 GMT';

async function range(value: string, more: Record<string, string> = {}) {
  await using origin = await startOrigin(
    serveContent(content, { etag: '"e1"', 'last-modified': lastModified, 'content-type': 'text/x-test' }),
  );
  await using rig = await startRig({ mirror: { upstream: origin.url } });
  return await ask(rig.port, '/files/a', { headers: { Range: value, ...more } });
}

describe('one range', () => {
  test.each([
    ['bytes=-100', 1_499_900, 1_500_000],
    ['bytes=-9999999', 0, 1_500_000],
    ['bytes=0-100', 0, 101],
    ['bytes=100-', 100, 1_500_000],
    ['bytes=100-500', 100, 501],
    ['bytes=0-1499999', 0, 1_500_000],
    ['bytes=1499999-9999999', 1_499_999, 1_500_000],
    ['bytes=9999999-,5-6', 5, 7],
  ])('%s', async (value, start, end) => {
    const answer = await range(value);
    expect(answer.status).toBe(206);
    expect(answer.headers['content-range']).toBe(formatContentRange({ start, end }, content.length));
    expect(answer.headers['content-length']).toBe(String(end - start));
    expect(answer.headers['content-type']).toBe('text/x-test');
    expect(answer.body.equals(content.subarray(start, end))).toBe(true);
  });

  test.each(['bytes=1500000-', 'bytes=-0', 'bytes=9999999-99999999'])('%s is 416 with the length', async (value) => {
    const answer = await range(value);
    expect(answer.status).toBe(416);
    expect(answer.headers['content-range']).toBe('bytes */1500000');
  });

  test.each(['bytes=5-1', 'bytes=a-b', 'lines=1-2', 'bytes='])('%s is no range: the whole content', async (value) => {
    const answer = await range(value);
    expect(answer.status).toBe(200);
    expect(answer.body.equals(content)).toBe(true);
  });

  test('more than 64 ranges are refused', async () => {
    const answer = await range(`bytes=${Array.from({ length: 65 }, (_, index) => `${index}-${index}`).join(',')}`);
    expect(answer.status).toBe(416);
  });

  test.each([
    ['"e1"', 206],
    [lastModified, 206],
    ['"e2"', 200],
    ['W/"e1"', 200],
    ['Wed, 21 Oct 2015 07:28:01 GMT', 200],
  ])('with If-Range %s it is %i', async (value, status) => {
    expect((await range('bytes=0-9', { 'If-Range': value })).status).toBe(status);
  });
});

describe('several ranges', () => {
  test('come as multipart/byteranges, small and large ones, with the exact length', async () => {
    const answer = await range('bytes=0-9,1000-600000,-5');
    expect(answer.status).toBe(206);
    expect(answer.headers['content-length']).toBe(String(answer.body.length));
    const boundary = /^multipart\/byteranges; boundary=(\S+)$/.exec(answer.headers['content-type'] ?? '')?.[1] ?? '';
    const part = (start: number, end: number) =>
      Buffer.concat([
        Buffer.from(
          `--${boundary}\r\nContent-Type: text/x-test\r\nContent-Range: ${formatContentRange({ start, end }, content.length)}\r\n\r\n`,
        ),
        content.subarray(start, end),
        Buffer.from('\r\n'),
      ]);
    const expected = Buffer.concat([
      part(0, 10),
      part(1000, 600_001),
      part(1_499_995, 1_500_000),
      Buffer.from(`--${boundary}--\r\n`),
    ]);
    expect(answer.body.equals(expected)).toBe(true);
  });

  test('that add up to more than the content are answered with the content', async () => {
    const answer = await range('bytes=0-,0-,0-');
    expect(answer.status).toBe(200);
    expect(answer.body.length).toBe(content.length);
  });
});

describe('odd content', () => {
  test('nothing at all: 200 without a body, 416 for a range', async () => {
    await using origin = await startOrigin(serveContent(Buffer.alloc(0)));
    await using rig = await startRig({ mirror: { upstream: origin.url } });
    const whole = await ask(rig.port, '/files/empty');
    expect([whole.status, whole.headers['content-length'], whole.body.length]).toEqual([200, '0', 0]);
    const part = await ask(rig.port, '/files/empty', { headers: { Range: 'bytes=0-' } });
    expect([part.status, part.headers['content-range']]).toEqual([416, 'bytes */0']);
  });

  test('of unknown length is passed straight through', async () => {
    await using origin = await startOrigin((_, res) => {
      res.write('some ');
      res.end('text');
    });
    await using rig = await startRig({ mirror: { upstream: origin.url } });
    const answer = await ask(rig.port, '/files/chunked');
    expect([answer.status, answer.body.toString()]).toEqual([200, 'some text']);
  });

  test('what the disk has no room for comes straight from the origin, from where the swarm left off', async () => {
    await using origin = await startOrigin(serveContent(content));
    await using rig = await startRig({ mirror: { upstream: origin.url } });
    rig.downloader.hooks.beforeExtent = ({ start }) => {
      if (start > 500_000) throw new PantalaError('disk-full', 'no space');
    };
    const answer = await ask(rig.port, '/files/a');
    expect(answer.body.equals(content)).toBe(true);
  });
});

describe('one connection', () => {
  test('answers pipelined requests in order, small and large bodies mixed', async () => {
    await using origin = await startOrigin(serveContent(content));
    await using rig = await startRig({ mirror: { upstream: origin.url } });
    await ask(rig.port, '/files/a');
    const socket = connect(rig.port, '127.0.0.1');
    const ranges = ['0-999', '0-1499999', '5-9', '1000-600000'];
    const requests = ranges.map((value, index) => {
      const last = index === ranges.length - 1 ? 'Connection: close\r\n' : '';
      return `GET /files/a HTTP/1.1\r\nHost: x\r\nRange: bytes=${value}\r\n${last}\r\n`;
    });
    socket.write(requests.join(''));
    const chunks: Buffer[] = [];
    for await (const chunk of socket) chunks.push(chunk as Buffer);
    let rest = Buffer.concat(chunks);
    for (const value of ranges) {
      const [start, last] = value.split('-').map(Number) as [number, number];
      const headEnd = rest.indexOf('\r\n\r\n');
      const head = rest.subarray(0, headEnd).toString();
      expect(head).toContain(`Content-Range: bytes ${value}/1500000`);
      const body = rest.subarray(headEnd + 4, headEnd + 4 + last + 1 - start);
      expect(body.equals(content.subarray(start, last + 1))).toBe(true);
      rest = rest.subarray(headEnd + 4 + body.length);
    }
    expect(rest.length).toBe(0);
  });

  test('an error before the first byte is an answer, after it the end of the connection', async () => {
    await using origin = await startOrigin(serveContent(content));
    await using rig = await startRig({ mirror: { upstream: origin.url } });
    let failAt = 0;
    rig.downloader.hooks.beforeExtent = ({ start }) => {
      if (start >= failAt) throw new PantalaError('unavailable', 'nobody has it');
    };
    const before = await ask(rig.port, '/files/a');
    expect([before.status, before.headers['x-dragonfly-error-type']]).toEqual([503, 'dfdaemon']);
    failAt = 400_000;
    await expect(ask(rig.port, '/files/a')).rejects.toThrow(/aborted|hang up|reset/);
    expect(rig.downloader.closed).toBe(rig.downloader.opened);
  });

  test('a client that goes away ends the demand and gives everything back', async () => {
    await using origin = await startOrigin(serveContent(content));
    await using rig = await startRig({ mirror: { upstream: origin.url } });
    const { promise: begun, resolve: begin } = Promise.withResolvers<void>();
    const { promise: release, resolve: goOn } = Promise.withResolvers<void>();
    const extents: number[] = [];
    rig.downloader.hooks.beforeExtent = async ({ start }) => {
      extents.push(start);
      if (start < 300_000) return;
      begin();
      await release;
    };
    const socket = connect(rig.port, '127.0.0.1');
    socket.write('GET /files/a HTTP/1.1\r\nHost: x\r\n\r\n');
    socket.resume();
    await begun;
    const asked = extents.length;
    socket.destroy();
    await once(socket, 'close');
    goOn();
    await waitFor(() => rig.downloader.closed === 1);
    expect(extents.length).toBeLessThanOrEqual(asked + 1);
  });
});
