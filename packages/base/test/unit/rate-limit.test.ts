import { monotonicNow, TokenBucket, unlimited } from '@pantala/base';
import { describe, expect, test } from 'vitest';

describe('TokenBucket', () => {
  test('hands out no more than its rate, also for requests larger than the bucket', async () => {
    const bucket = new TokenBucket({ rate: 1000, burst: 20 });
    const start = monotonicNow();
    await bucket.acquire(70);
    // 20 are there at once, the other 50 take 50 ms.
    expect(monotonicNow() - start).toBeGreaterThanOrEqual(49);
  });

  test('serves in order of coming', async () => {
    const bucket = new TokenBucket({ rate: 2000, burst: 1 });
    const order: number[] = [];
    await Promise.all([30, 1, 5, 1].map((tokens, i) => bucket.acquire(tokens).then(() => order.push(i))));
    expect(order).toEqual([0, 1, 2, 3]);
  });

  test('a waiter that leaves gives back what it had paid and lets the next one through', async () => {
    const bucket = new TokenBucket({ rate: 0.001, burst: 10 });
    const controller = new AbortController();
    const greedy = bucket.acquire(1000, controller.signal);
    const modest = bucket.acquire(10);
    controller.abort();
    await expect(greedy).rejects.toMatchObject({ code: 'cancelled' });
    await modest;
    expect(bucket.tryAcquire(1)).toBe(false);
  });

  test('children share their parent', async () => {
    const total = new TokenBucket({ rate: 1000, burst: 10 });
    const children = [1, 2].map(() => new TokenBucket({ rate: 1e9, parent: total }));
    const start = monotonicNow();
    await Promise.all(children.map((child) => child.acquire(30)));
    expect(monotonicNow() - start).toBeGreaterThanOrEqual(49);
  });

  test('a child that cannot have its parent gives its own tokens back', async () => {
    const total = new TokenBucket({ rate: 0.001, burst: 1 });
    const child = new TokenBucket({ rate: 0.001, burst: 10, parent: total });
    await expect(child.acquire(10, AbortSignal.timeout(5))).rejects.toMatchObject({ code: 'deadline-exceeded' });
    expect(child.tryAcquire(2)).toBe(false);
    expect(child.tryAcquire(1)).toBe(true);
  });

  test('tryAcquire takes all or nothing', () => {
    const bucket = new TokenBucket({ rate: 0.001, burst: 3 });
    expect(bucket.tryAcquire(4)).toBe(false);
    expect(bucket.tryAcquire(3)).toBe(true);
    expect(bucket.tryAcquire(1)).toBe(false);
    expect(unlimited.tryAcquire(Number.MAX_SAFE_INTEGER)).toBe(true);
    expect(() => new TokenBucket({ rate: 0 })).toThrowError(expect.objectContaining({ code: 'invalid-argument' }));
  });
});
