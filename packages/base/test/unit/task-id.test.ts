import { blobDigestOfUrl, filterQuery, HashRing, hostId, isTaskId, logPeerId, peerId, taskId } from '@pantala/base';
import { describe, expect, test } from 'vitest';

const DIGEST = '0123456789abcdef'.repeat(4);

describe('task ids', () => {
  test("upstream's vectors", () => {
    const url = 'https://example.com';
    expect(taskId({ url, tag: 'foo', application: 'bar', revision: 'v1.0', pieceLength: 1024 })).toBe(
      '5844f27a257287e9b734256bb25603d8005422ced8c0377f15063ec11963b25f',
    );
    expect(taskId({ url })).toBe('457b4328cde278e422c9e243f7bfd1e97f511fec43a80f535cf6b0ef6b086776');
    expect(taskId({ url, tag: 'foo', application: 'bar' })).toBe(
      '06408fbf247ddaca478f8cb9565fe5591c28efd0994b8fea80a6a87d3203c5ca',
    );
    expect(taskId({ url, pieceLength: 1024 })).toBe('9f7c9aafbc6f30f8f41a96ca77eeae80c5b60964b3034b0ee43ccf7b2f9e52b8');
    expect(taskId({ url, contentForTaskId: 'This is a test file' })).toBe(
      'e2d0fe1585a63ec6009c8016ff8dda8b17719a637405a4e23c0ff81339148249',
    );
  });

  test('a blob is its digest, whatever host, scheme and query it is asked with', () => {
    for (const url of [
      `https://a.example/v2/library/x/blobs/sha256:${DIGEST}`,
      `http://127.0.0.1:5000/v2/y/blobs/sha256:${DIGEST}?ns=docker.io`,
    ]) {
      expect(taskId({ url })).toBe(DIGEST);
      expect(taskId({ url, tag: '' })).toBe(DIGEST);
      for (const named of [{ tag: 't' }, { application: 'a' }, { contentForTaskId: 'c' }]) {
        expect(taskId({ url, ...named })).not.toBe(DIGEST);
      }
    }
    for (const url of [
      `https://a.example/v2/x/manifests/sha256:${DIGEST}`,
      `https://a.example/v2/x/blobs/sha256:${DIGEST}0`,
      `https://a.example/?u=/v2/x/blobs/sha256:${DIGEST}`,
    ]) {
      expect(blobDigestOfUrl(url)).toBeUndefined();
      expect(isTaskId(taskId({ url }))).toBe(true);
    }
  });

  test('filtered parameters leave the others in their order', () => {
    const url = 'https://example.com/f?b=2&X-Amz-Date=now&a=1%202&ns=docker.io';
    expect(filterQuery(url, ['X-Amz-Date', 'ns'])).toBe('https://example.com/f?b=2&a=1+2');
    expect(taskId({ url })).toBe(taskId({ url: 'https://example.com/f?b=2&a=1%202' }));
    expect(taskId({ url, filteredQueryParams: [] })).not.toBe(taskId({ url }));
    expect(filterQuery('https://example.com/?ns=x', ['ns'])).toBe('https://example.com');
    expect(filterQuery('https://example.com/?a=/', [])).toBe('https://example.com/?a=%2F');
    expect(() => filterQuery('no url', [])).toThrowError(expect.objectContaining({ code: 'invalid-argument' }));
  });
});

test('host and peer ids', () => {
  expect(hostId({ ip: '10.0.0.1', hostname: 'node', seed: false })).toBe('10.0.0.1-node');
  expect(hostId({ ip: '10.0.0.1', hostname: 'node', seed: true })).toBe('10.0.0.1-node-seed');
  expect(peerId({ ip: '10.0.0.1', hostname: 'node', seed: true })).toMatch(/^10\.0\.0\.1-node-[0-9a-f-]{36}-seed$/);
  expect(logPeerId('10.0.0.1')).toMatch(new RegExp(`^10\\.0\\.0\\.1-${process.pid}-[0-9a-f-]{36}$`));
});

describe('HashRing', () => {
  const nodes = ['a', 'b', 'c', 'd', 'e'];
  const keys = Array.from({ length: 2000 }, (_, i) => `key ${i}`);

  test('only keys of a node that left move', () => {
    const before = new HashRing(nodes);
    const after = new HashRing(nodes.filter((node) => node !== 'c').reverse());
    for (const key of keys) {
      const [first, second] = before.pickMany(key, 2);
      expect(after.pick(key)).toBe(first === 'c' ? second : first);
    }
  });

  test('every node gets a fair share', () => {
    const ring = new HashRing(nodes);
    const shares = new Map<string, number>();
    for (const key of keys) shares.set(ring.pick(key) as string, (shares.get(ring.pick(key) as string) ?? 0) + 1);
    for (const node of nodes) {
      expect(shares.get(node)).toBeGreaterThan(keys.length / nodes.length / 2);
      expect(shares.get(node)).toBeLessThan((keys.length / nodes.length) * 2);
    }
  });

  test('edges', () => {
    expect(new HashRing([]).pick('x')).toBeUndefined();
    expect(new HashRing(['a', 'a']).pickMany('x', 5)).toEqual(['a']);
    expect(new Set(new HashRing(nodes).pickMany('x', 9))).toEqual(new Set(nodes));
  });
});
