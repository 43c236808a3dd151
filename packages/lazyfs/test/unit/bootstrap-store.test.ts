import { readFileSync, writeFileSync } from 'node:fs';
import { sha256Hex } from '@pantala/base';
import { Scratch } from '@pantala/testkit';
import { expect, test } from 'vitest';
import { BootstrapStore } from '../../src/mounting/bootstrap-store.ts';

test('a bootstrap is kept under its digest; its bytes are freed when they are given back', async () => {
  await using scratch = Scratch.create('bootstraps');
  const given = scratch.join('given');
  writeFileSync(given, 'a'.repeat(10_000));
  const store = new BootstrapStore(scratch.join('kept'));
  const { digest, bytes } = await store.add(given, undefined);
  expect(digest).toBe(sha256Hex('a'.repeat(10_000)));
  expect(Buffer.from(bytes.bytes).equals(readFileSync(store.path(digest)))).toBe(true);
  bytes[Symbol.dispose]();
  expect(bytes.bytes.buffer.byteLength).toBe(0);
});

test('one with another digest is refused, and nothing of it is kept', async () => {
  await using scratch = Scratch.create('bootstraps');
  const given = scratch.join('given');
  writeFileSync(given, 'something');
  const store = new BootstrapStore(scratch.join('kept'));
  await expect(store.add(given, 'f'.repeat(64))).rejects.toThrow('SHA-256');
  expect(() => readFileSync(store.path(sha256Hex('something')))).toThrow('ENOENT');
});
