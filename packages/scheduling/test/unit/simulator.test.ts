import { describe, expect, test } from 'vitest';
import { type Scenario, simulate } from '../../src/index.ts';

const MIB = 1024 * 1024;
/** 200 Mbit/s. */
const LINK = { up: 25_000_000, down: 25_000_000 };

const crowd: Scenario = {
  peers: 6,
  seeds: 1,
  contentLength: 256 * MIB,
  link: LINK,
  originRate: 250_000_000,
  arrival: 50,
};

describe('a flash crowd', () => {
  test.each([6, 16, 32])('of %i peers and a seed with equal links is done within 1.3 of the bound', (peers) => {
    const result = simulate({ ...crowd, peers });
    expect(result.finished).toBe(peers);
    expect(result.makespan / result.bound).toBeLessThanOrEqual(1.3);
    expect(result.makespan).toBeGreaterThanOrEqual(result.bound);
    expect(result.originCopies).toBe(1);
    expect(result.fairness).toBeGreaterThan(0.8);
  });

  test('of one peer is as fast as the seed', () => {
    const result = simulate({ ...crowd, peers: 1 });
    expect(result.makespan / result.bound).toBeLessThanOrEqual(1.1);
  });

  test('without a seed asks the origin once', () => {
    const result = simulate({ ...crowd, seeds: 0, originRate: LINK.up });
    expect(result.finished).toBe(6);
    expect(result.originCopies).toBeLessThanOrEqual(1.02);
  });

  test.each([
    ['another seed', 2],
    ['a peer', 1],
  ])('whose seed dies goes on with %s', (_who, seeds) => {
    const result = simulate({
      ...crowd,
      contentLength: 64 * MIB,
      seeds,
      peers: 8,
      originRate: LINK.up,
      seedDiesAt: 1_500,
    });
    expect(result.finished).toBe(8);
    expect(result.originCopies).toBeGreaterThan(0.99);
    expect(result.originCopies).toBeLessThanOrEqual(2);
  });

  test('gives the same result for the same number, and another for another', () => {
    const one = simulate({ ...crowd, contentLength: 32 * MIB, peers: 8, random: 1 });
    expect(simulate({ ...crowd, contentLength: 32 * MIB, peers: 8, random: 1 })).toEqual(one);
    expect(simulate({ ...crowd, contentLength: 32 * MIB, peers: 8, random: 2 }).makespan).not.toBe(one.makespan);
  });
});
