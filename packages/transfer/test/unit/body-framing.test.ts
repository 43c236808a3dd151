import { noMetrics } from '@pantala/base';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createOrigin } from '../../src/index.ts';
import { headEnd, parseResponseHead } from '../../src/origin/response-head.ts';
import { retryAfter } from '../../src/origin/retries.ts';
import { contentOf, numbered } from '../support/origin-conformance.ts';
import { scriptedServer } from '../support/scripted-server.ts';

describe('answers in parts', () => {
  it('brings the same content however the answer is split', async () => {
    const content = numbered(5000);
    const cuts = fc.array(fc.nat({ max: 5600 }), { maxLength: 12 });
    const sizes = fc.array(fc.integer({ min: 1, max: 2000 }), { minLength: 1, maxLength: 10 });
    await fc.assert(
      fc.asyncProperty(cuts, sizes, fc.boolean(), async (places, chunkSizes, chunked) => {
        const answer = chunked ? chunkedAnswer(content, chunkSizes) : lengthAnswer(content);
        const stops = [...places, answer.length].toSorted((a, b) => a - b);
        await using server = await scriptedServer((_, socket) => {
          let at = 0;
          const next = () => {
            const stop = stops.shift();
            if (stop === undefined || socket.destroyed) return;
            if (stop > at) socket.write(answer.subarray(at, stop));
            at = Math.max(at, stop);
            setImmediate(next);
          };
          next();
          return undefined;
        });
        await using origin = createOrigin({ attempts: 1 }, { metrics: noMetrics });
        await using body = await origin.fetch({ url: server.url, headers: {} });
        expect((await contentOf(body)).equals(content)).toBe(true);
      }),
      { numRuns: 40 },
    );
  });
});

function lengthAnswer(content: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`HTTP/1.1 200 OK\r\nContent-Length: ${content.length}\r\n\r\n`), content]);
}

function chunkedAnswer(content: Buffer, sizes: readonly number[]): Buffer {
  const parts: Buffer[] = [Buffer.from('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')];
  for (let at = 0, i = 0; at < content.length; i++) {
    const chunk = content.subarray(at, at + (sizes[i % sizes.length] as number));
    parts.push(Buffer.from(`${chunk.length.toString(16)}\r\n`), chunk, Buffer.from('\r\n'));
    at += chunk.length;
  }
  return Buffer.concat([...parts, Buffer.from('0\r\n\r\n')]);
}

describe('heads', () => {
  it('never crash or hang the parser', () => {
    const seed = 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\n';
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat({ max: seed.length - 1 }), fc.nat({ max: 255 })), { maxLength: 5 }),
        (edits) => {
          const bytes = Buffer.from(seed);
          for (const [at, value] of edits) bytes[at] = value;
          const end = headEnd(bytes);
          if (end < 0) return;
          try {
            expect(parseResponseHead(bytes.subarray(0, end)).status).toBeGreaterThanOrEqual(100);
          } catch (error) {
            expect(error).toMatchObject({ code: 'origin' });
          }
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('keeps a header that is named like a property of objects', () => {
    const head = parseResponseHead(Buffer.from('HTTP/1.1 200 OK\r\n__proto__: a\r\nA: 1\r\na: 2\r\n\r\n'));
    expect(Object.entries(head.headers)).toEqual([
      ['__proto__', 'a'],
      ['a', '1, 2'],
    ]);
  });

  it('reads both forms of Retry-After', () => {
    const now = Date.parse('Wed, 21 Oct 2026 07:28:00 GMT');
    expect(retryAfter('120', now)).toBe(120_000);
    expect(retryAfter('Wed, 21 Oct 2026 07:28:30 GMT', now)).toBe(30_000);
    expect(retryAfter('Wed, 21 Oct 2026 07:00:00 GMT', now)).toBe(0);
    expect(retryAfter('soon', now)).toBeUndefined();
    expect(retryAfter(undefined, now)).toBeUndefined();
  });
});
