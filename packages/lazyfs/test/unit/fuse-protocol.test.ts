import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  answerHeader,
  attributesAnswer,
  entryAnswer,
  IN_HEADER,
  initAnswer,
  lookupName,
  OPCODES,
  parseRequest,
  readRange,
} from '../../src/fuse/protocol.ts';

function request(opcode: number, body: Uint8Array, unique = 7n): Uint8Array {
  const bytes = new Uint8Array(IN_HEADER + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length, true);
  view.setUint32(4, opcode, true);
  view.setBigUint64(8, unique, true);
  view.setBigUint64(16, 2n ** 48n + 5n, true);
  view.setUint32(32, 4711, true);
  bytes.set(body, IN_HEADER);
  return bytes;
}

test('requests are read as the kernel writes them (linux/fuse.h)', () => {
  const body = new Uint8Array(40);
  new DataView(body.buffer).setBigUint64(8, 5_000_000_000n, true);
  new DataView(body.buffer).setUint32(16, 131_072, true);
  const read = parseRequest(request(OPCODES.read, body, 2n ** 63n + 1n));
  expect(read).toMatchObject({ opcode: 15, unique: 2n ** 63n + 1n, node: 2 ** 48 + 5, pid: 4711 });
  expect(read && readRange(read)).toEqual({ offset: 5_000_000_000, count: 131_072 });
  const lookup = parseRequest(request(OPCODES.lookup, Buffer.from(`${'ab'.repeat(32)}\0`)));
  expect(lookup && lookupName(lookup)).toBe('ab'.repeat(32));
});

test('answers have the lengths of their structures', () => {
  expect(entryAnswer(5, 4096)).toHaveLength(128);
  expect(attributesAnswer(1, undefined)).toHaveLength(104);
  const header = answerHeader(9n, 5, 0);
  expect([...new Int32Array(header.slice(0, 8).buffer)]).toEqual([16, -5]);
  const init = (minor: number) =>
    parseRequest(request(OPCODES.init, new Uint8Array(new Uint32Array([7, minor, 131_072, 0xffff_ffff]).buffer)));
  const answered = initAnswer(init(40) as NonNullable<ReturnType<typeof init>>);
  expect(answered).toHaveLength(64);
  expect(new DataView((answered as Uint8Array<ArrayBuffer>).buffer).getUint32(4, true)).toBe(31);
  expect(initAnswer(init(12) as NonNullable<ReturnType<typeof init>>)).toBeUndefined();
});

test('whatever stands in a buffer, reading a request from it never leaves it', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 120 }), fc.nat(130), (bytes, length) => {
      if (bytes.length >= 4) new DataView(bytes.buffer, bytes.byteOffset).setUint32(0, length, true);
      const found = parseRequest(bytes);
      if (found === undefined) return;
      expect(found.body.length).toBeLessThanOrEqual(bytes.length - IN_HEADER);
      lookupName(found);
      readRange(found);
    }),
  );
});
