import { type ByteRange, PantalaError, sha256Hex } from '@pantala/base';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Origin, OriginBody } from '../../src/index.ts';

/** A back end under test, and a store behind it that the suite may put objects into. */
export interface OriginUnderTest extends AsyncDisposable {
  readonly origin: Origin;
  /** Makes an object and resolves to its URL. */
  put(name: string, content: Buffer): Promise<string>;
  /** A URL of the same store where nothing is. */
  readonly missing: string;
}

/** Everything of a body, copied chunk by chunk as its contract demands. */
export async function contentOf(body: OriginBody): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const chunk of body.chunks) parts.push(Buffer.from(chunk));
  return Buffer.concat(parts);
}

/** Repeats no block, so that bytes from a wrong place show. */
export function numbered(length: number): Buffer {
  const content = Buffer.alloc(Math.ceil(length / 32) * 32);
  for (let i = 0; i * 32 < length; i++) content.write(sha256Hex(`${i}`).slice(0, 31), i * 32);
  return content.subarray(0, length);
}

/** What every origin back end must do: run it for each. */
export function describeOrigin(name: string, start: () => Promise<OriginUnderTest>): void {
  describe(`origin conformance: ${name}`, () => {
    const content = numbered(3 * 1024 * 1024 + 17);
    let subject: OriginUnderTest;
    let url: string;

    beforeAll(async () => {
      subject = await start();
      url = await subject.put('content', content);
    });
    afterAll(async () => subject[Symbol.asyncDispose]());

    it('tells the length', async () => {
      const stat = await subject.origin.stat({ url, headers: {} });
      expect(stat.contentLength).toBe(content.length);
      expect(stat.headers['content-length']).toBe(String(content.length));
      expect(stat.headers['content-range']).toBeUndefined();
    });

    it('fetches everything', async () => {
      await using body = await subject.origin.fetch({ url, headers: {} });
      expect((await contentOf(body)).equals(content)).toBe(true);
    });

    it('fetches ranges, at the edges and many at once', async () => {
      const ranges: ByteRange[] = [
        { start: 0, end: 1 },
        { start: 0, end: content.length },
        { start: content.length - 1, end: content.length },
        { start: 1_000_003, end: 1_131_075 },
        ...Array.from({ length: 20 }, (_, i) => ({ start: i * 100_001, end: i * 100_001 + 65_536 })),
      ];
      const fetchRange = async (range: ByteRange) => {
        await using body = await subject.origin.fetch({ url, headers: {}, range });
        expect(body.range).toEqual(range);
        expect((await contentOf(body)).equals(content.subarray(range.start, range.end))).toBe(true);
      };
      await Promise.all(ranges.map(fetchRange));
    });

    it('refuses what is not there', async () => {
      const request = { url: subject.missing, headers: {} };
      await expect(subject.origin.stat(request)).rejects.toMatchObject({ code: 'origin', details: { status: 404 } });
      await expect(subject.origin.fetch(request)).rejects.toMatchObject({ code: 'origin', details: { status: 404 } });
    });

    it('refuses a range outside the content', async () => {
      const range = { start: content.length + 10, end: content.length + 20 };
      await expect(subject.origin.fetch({ url, headers: {}, range })).rejects.toMatchObject({ code: 'origin' });
    });

    it('knows empty content', async () => {
      const empty = await subject.put('empty', Buffer.alloc(0));
      expect((await subject.origin.stat({ url: empty, headers: {} })).contentLength).toBe(0);
      await using body = await subject.origin.fetch({ url: empty, headers: {} });
      expect(await contentOf(body)).toHaveLength(0);
    });

    it('ends when it is cancelled, before and in the middle', async () => {
      const abort = new AbortController();
      await using body = await subject.origin.fetch({ url, headers: {}, signal: abort.signal });
      const read = async () => {
        for await (const chunk of body.chunks) abort.abort(new PantalaError('cancelled', `after ${chunk.length}`));
      };
      await expect(read()).rejects.toMatchObject({ code: 'cancelled' });
      await expect(subject.origin.stat({ url, headers: {}, signal: abort.signal })).rejects.toMatchObject({
        code: 'cancelled',
      });
    });

    it('serves others after a body was left unread', async () => {
      for (let i = 0; i < 100; i++) {
        await using body = await subject.origin.fetch({ url, headers: {} });
        expect(body.contentLength).toBe(content.length);
      }
      expect((await subject.origin.stat({ url, headers: {} })).contentLength).toBe(content.length);
    });
  });
}
