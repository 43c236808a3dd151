import {
  AbortScope,
  abortable,
  Backoff,
  Deferred,
  Listeners,
  Lru,
  Semaphore,
  SingleFlight,
  sleep,
} from '@pantala/base';
import { describe, expect, test } from 'vitest';

const cancelled = expect.objectContaining({ code: 'cancelled' });

describe('signals', () => {
  test('sleep and abortable end with their signal', async () => {
    const controller = new AbortController();
    const waiting = [sleep(1e9, controller.signal), abortable(new Promise(() => {}), controller.signal)];
    controller.abort();
    for (const promise of waiting) await expect(promise).rejects.toEqual(cancelled);
    await expect(sleep(0, controller.signal)).rejects.toEqual(cancelled);
    await expect(abortable(Promise.resolve(1), controller.signal)).rejects.toEqual(cancelled);
    expect(await abortable(Promise.resolve(1), new AbortController().signal)).toBe(1);
    await sleep(1);
  });

  test('a scope aborts with a parent, by hand and by time', async () => {
    const parent = new AbortController();
    const byParent = new AbortScope([undefined, parent.signal]);
    const disposed = new AbortScope([parent.signal]);
    disposed[Symbol.dispose]();
    parent.abort(new Error('why'));
    expect(byParent.signal.reason).toEqual(new Error('why'));
    expect(disposed.signal.aborted).toBe(false);
    expect(new AbortScope([parent.signal]).signal.aborted).toBe(true);
    const byTime = new AbortScope([], { timeout: 1, what: 'it' });
    await expect(abortable(new Promise(() => {}), byTime.signal)).rejects.toMatchObject({ code: 'deadline-exceeded' });
    const byHand = new AbortScope([], { timeout: Number.POSITIVE_INFINITY });
    byHand.abort();
    expect(byHand.signal.reason).toEqual(cancelled);
  });
});

describe('Semaphore', () => {
  test('never more than its limit, in order, and aborted waiters leave the queue', async () => {
    const semaphore = new Semaphore(2);
    const controller = new AbortController();
    const first = await semaphore.acquire();
    const second = await semaphore.acquire();
    expect(semaphore.tryAcquire()).toBeUndefined();
    const order: string[] = [];
    const aborted = semaphore.acquire(controller.signal);
    const queue = async (name: string) => {
      const permit = await semaphore.acquire();
      order.push(name);
      return permit;
    };
    const third = queue('third');
    const fourth = queue('fourth');
    controller.abort();
    await expect(aborted).rejects.toEqual(cancelled);
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    (await third)[Symbol.dispose]();
    second[Symbol.dispose]();
    (await fourth)[Symbol.dispose]();
    expect(order).toEqual(['third', 'fourth']);
    expect(semaphore.held).toBe(0);
    expect(semaphore.waiting).toBe(0);
  });
});

describe('SingleFlight', () => {
  test('one run for all callers; it is aborted when the last one leaves, and the key is free at once', async () => {
    const flights = new SingleFlight<string, number>();
    const results: Deferred<number>[] = [];
    const signals: AbortSignal[] = [];
    const work = (signal: AbortSignal) => {
      const result = new Deferred<number>();
      signals.push(signal);
      return results[results.push(result) - 1]?.promise as Promise<number>;
    };
    const a = new AbortController();
    const b = new AbortController();
    const runs = [flights.run('k', a.signal, work), flights.run('k', b.signal, work)];
    expect(results).toHaveLength(1);
    a.abort();
    await expect(runs[0]).rejects.toEqual(cancelled);
    expect(signals[0]?.aborted).toBe(false);
    b.abort();
    await expect(runs[1]).rejects.toEqual(cancelled);
    expect(signals[0]?.aborted).toBe(true);
    const again = flights.run('k', undefined, work);
    expect(results).toHaveLength(2);
    results[0]?.resolve(1);
    results[1]?.resolve(2);
    expect(await again).toBe(2);
    expect(flights.size).toBe(0);
    expect(signals[1]?.aborted).toBe(false);
  });

  test('a failure reaches every caller and is not remembered', async () => {
    const flights = new SingleFlight<string, number>();
    const fail = () => Promise.reject(new Error('no'));
    const outcomes = await Promise.allSettled([flights.run('k', undefined, fail), flights.run('k', undefined, fail)]);
    expect(outcomes.map((outcome) => outcome.status)).toEqual(['rejected', 'rejected']);
    expect(await flights.run('k', undefined, async () => 7)).toBe(7);
  });
});

test('backoff grows to its limit and never below the part that is not left to chance', () => {
  const exact = new Backoff({ initial: 10, limit: 50, jitter: 0 });
  expect([exact.next(), exact.next(), exact.next(), exact.next(), exact.attempts]).toEqual([10, 20, 40, 50, 4]);
  exact.reset();
  expect(exact.next()).toBe(10);
  const numbers = [0, 0.5, 0.999];
  const jittered = new Backoff({
    initial: 10,
    limit: 1000,
    factor: 1,
    jitter: 0.4,
    random: () => numbers.shift() ?? 0,
  });
  expect(jittered.next()).toBe(10);
  expect(jittered.next()).toBe(8);
  expect(jittered.next()).toBeCloseTo(6, 1);
});

test('Lru pushes out what was used least recently', () => {
  const evicted: string[] = [];
  const lru = new Lru<string, number>(2, (key) => evicted.push(key));
  lru.set('a', 1);
  lru.set('b', 2);
  expect(lru.get('a')).toBe(1);
  lru.set('c', 3);
  expect(evicted).toEqual(['b']);
  expect(lru.get('b')).toBeUndefined();
  expect(lru.delete('a')).toBe(1);
  expect([...lru.entries()]).toEqual([['c', 3]]);
  expect(evicted).toEqual(['b']);
});

test('listeners may leave while an event is told', () => {
  const listeners = new Listeners<number>();
  const heard: string[] = [];
  listeners.subscribe((event) => {
    heard.push(`first ${event}`);
    second[Symbol.dispose]();
  });
  const second = listeners.subscribe((event) => heard.push(`second ${event}`));
  listeners.emit(1);
  expect(heard).toEqual(['first 1']);
  expect(listeners.size).toBe(1);
});
