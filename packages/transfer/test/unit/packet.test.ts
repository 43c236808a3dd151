import { DIGEST_LENGTH, PantalaError } from '@pantala/base';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Message } from '../../src/wire/messages.ts';
import {
  contentAfter,
  decodePacket,
  encodePacket,
  HEADER_LENGTH,
  MAX_FRAME_LENGTH,
  MAX_PACKET_LENGTH,
} from '../../src/wire/packet.ts';
import { PacketReader } from '../../src/wire/packet-reader.ts';

const u32 = fc.nat({ max: 0xffff_ffff });
const taskId = fc.stringMatching(/^[0-9a-f]{64}$/);
const run = fc.record({ first: u32, count: fc.integer({ min: 1, max: 4096 }) });
const family = fc.constantFrom('standard', 'persistent', 'persistent-cache', 'cache');
const text = fc.string({ maxLength: 200 });
const safe = fc.maxSafeNat();

const message: fc.Arbitrary<Message> = fc.oneof(
  fc.record({ kind: fc.constant('download-piece'), family, taskId, piece: u32 }),
  fc.record({
    kind: fc.constant('piece-content'),
    family,
    piece: u32,
    offset: safe,
    length: fc.nat({ max: 3000 }),
    digest: text,
    parentId: text,
    trafficType: fc.nat({ max: 255 }),
    cost: safe,
    createdAt: fc.maxSafeInteger(),
  }),
  fc.record({
    kind: fc.constant('range-request'),
    request: u32,
    taskId,
    pieceLength: safe,
    run: fc.record({ first: u32, count: u32 }),
    wantDigests: fc.boolean(),
    fetchMissing: fc.boolean(),
  }),
  fc.record({
    kind: fc.constant('range-digests'),
    request: u32,
    piece: u32,
    digests: fc
      .integer({ min: 1, max: 40 })
      .chain((count) => fc.uint8Array({ minLength: count * DIGEST_LENGTH, maxLength: count * DIGEST_LENGTH }))
      .map((bytes) => Buffer.from(bytes)),
  }),
  fc.record({ kind: fc.constant('range-data'), request: u32, run, bytes: fc.integer({ min: 1, max: 3000 }) }),
  fc.record({ kind: fc.constant('range-end'), request: u32 }),
  fc.record({ kind: fc.constant('cancel-range'), request: u32 }),
  fc.record({ kind: fc.constant('range-error'), request: u32, code: fc.nat({ max: 255 }), message: text }),
  fc.record({ kind: fc.constant('close') }),
  fc.record({ kind: fc.constant('error'), code: fc.nat({ max: 255 }), message: text }),
) as fc.Arbitrary<Message>;

/** Messages with their content as one stream. */
function streamOf(messages: readonly Message[]): { stream: Buffer; contents: Buffer[] } {
  const parts: Buffer[] = [];
  const contents: Buffer[] = [];
  for (const [index, one] of messages.entries()) {
    const content = Buffer.alloc(contentAfter(one), index + 1);
    contents.push(content);
    parts.push(encodePacket(one, index & 0xff), content);
  }
  return { stream: Buffer.concat(parts), contents };
}

/** Reads a stream in the given chunks. */
function readAll(chunks: Iterable<Buffer>): { messages: Message[]; contents: Buffer[]; most: number } {
  const reader = new PacketReader();
  const messages: Message[] = [];
  const contents: Buffer[] = [];
  let missing = 0;
  let most = 0;
  for (const chunk of chunks) {
    reader.push(chunk);
    for (;;) {
      if (missing > 0) {
        const part = reader.takeContent(missing);
        if (part.length === 0) break;
        missing -= part.length;
        contents.push(Buffer.concat([contents.pop() ?? Buffer.alloc(0), part]));
        continue;
      }
      const packet = reader.next();
      if (packet === undefined) break;
      messages.push(packet.message);
      contents.push(Buffer.alloc(0));
      missing = contentAfter(packet.message);
    }
    most = Math.max(most, reader.buffered - chunk.length);
  }
  return { messages, contents, most };
}

function* split(stream: Buffer, cuts: readonly number[]): Generator<Buffer> {
  const places = Array.from(new Set([0, ...cuts.map((cut) => cut % (stream.length + 1)), stream.length]));
  places.sort((a, b) => a - b);
  for (let i = 1; i < places.length; i++) yield stream.subarray(places[i - 1], places[i]);
}

describe('the packet codec', () => {
  it('decodes what it encodes', () => {
    fc.assert(
      fc.property(message, fc.nat({ max: 255 }), (one, id) => {
        const bytes = encodePacket(one, id);
        expect(decodePacket(bytes)).toEqual({ id, message: one, end: bytes.length });
      }),
    );
  });

  it('reads a stream the same however it is split', () => {
    fc.assert(
      fc.property(fc.array(message, { maxLength: 8 }), fc.array(fc.nat()), (messages, cuts) => {
        const { stream, contents } = streamOf(messages);
        const read = readAll(split(stream, cuts));
        expect(read.messages).toEqual(messages);
        expect(Buffer.concat(read.contents).equals(Buffer.concat(contents))).toBe(true);
      }),
    );
  });

  it('reads a stream byte by byte', () => {
    const one: Message = { kind: 'range-end', request: 7 };
    const { stream } = streamOf([one, { kind: 'range-data', request: 1, run: { first: 0, count: 1 }, bytes: 5 }, one]);
    const read = readAll(Array.from(stream, (_, i) => stream.subarray(i, i + 1)));
    expect(read.messages).toHaveLength(3);
  });

  it('answers mutated bytes with an error or other packets, and keeps little', () => {
    const mutation = fc.record({ at: fc.nat(), value: fc.nat({ max: 255 }) });
    fc.assert(
      fc.property(
        fc.array(message, { minLength: 1, maxLength: 4 }),
        fc.array(mutation, { minLength: 1, maxLength: 6 }),
        fc.array(fc.nat(), { maxLength: 10 }),
        (messages, mutations, cuts) => {
          const { stream } = streamOf(messages);
          for (const { at, value } of mutations) stream[at % stream.length] = value;
          try {
            expect(readAll(split(stream, cuts)).most).toBeLessThanOrEqual(MAX_PACKET_LENGTH);
          } catch (error) {
            expect(error).toBeInstanceOf(PantalaError);
            expect((error as PantalaError).code).toBe('data-loss');
          }
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('refuses a length beyond its bounds before the value arrives', () => {
    const header = Buffer.from([0, 129, 0xff, 0xff, 0xff, 0xff]);
    expect(() => decodePacket(header)).toThrow(/4294967295 bytes/);
    expect(decodePacket(header.subarray(0, HEADER_LENGTH - 1))).toBeUndefined();
  });

  it('refuses frames above the limit, empty ones, and unknown tags', () => {
    const frame = { kind: 'range-data', request: 1, run: { first: 0, count: 1 } } as const;
    expect(() => decodePacket(encodePacket({ ...frame, bytes: MAX_FRAME_LENGTH + 1 }))).toThrow(/at most/);
    expect(() => decodePacket(encodePacket({ ...frame, bytes: 0 }))).toThrow(PantalaError);
    expect(() => decodePacket(Buffer.from([0, 77, 0, 0, 0, 0]))).toThrow(/unknown tag 77/);
  });

  it('writes upstream packets byte for byte', () => {
    const id = 'ab'.repeat(32);
    const request = encodePacket({ kind: 'download-piece', family: 'standard', taskId: id, piece: 3 }, 9);
    expect(request.toString('latin1')).toBe(`\x09\x00\x00\x00\x00\x44${id}\x00\x00\x00\x03`);
    const answer = encodePacket({
      kind: 'piece-content',
      family: 'standard',
      piece: 3,
      offset: 12,
      length: 5,
      digest: 'crc32:7',
      parentId: 'p',
      trafficType: 2,
      cost: 1,
      createdAt: 2,
    });
    const expected =
      '0001 00000039 00000035 00000003 000000000000000c 0000000000000005 00000007 63726333323a37 00000001 70 02 0000000000000001 0000000000000002';
    expect(answer.toString('hex')).toBe(
      expected.replaceAll(' ', '').replace('63726333323a37', Buffer.from('crc32:7').toString('hex')),
    );
  });
});
