import { type Answer, until } from '@pantala/testkit';
import { expect } from 'vitest';
import type { Served, Stage } from '../lib/stage.ts';

/** Slow enough that something can happen in the middle of a transfer, fast enough for a quick set. */
export const ORIGIN_RATE = 12 * 1024 * 1024;
/** A download that takes longer hangs: many times what the slowest of these cases needs. */
export const DEADLINE = 120_000;

/** Every peer asks at once. */
export function crowd(stage: Stage, served: Served): Promise<readonly Answer[]> {
  const { peers } = stage.swarm;
  return Promise.all(peers.map((peer) => stage.fetch(peer, served.url, { deadline: DEADLINE })));
}

/** Every answer is complete and right. */
export function expectRight(answers: readonly Answer[], served: Served): void {
  for (const answer of answers) {
    expect(answer).toMatchObject({ status: 200, whole: true, sha256: served.content.sha256 });
  }
}

/** An answer may have ended in an error, with its role killed; wrong bytes that look right are never allowed. */
export function expectHonest(answer: Answer | undefined, served: Served): void {
  if (answer?.status === 200 && answer.whole) expect(answer.sha256).toBe(served.content.sha256);
}

/** Waits until the origin has handed out this share of the content. */
export function underway(stage: Stage, served: Served, share: number): Promise<true> {
  return until(() => stage.origin.count(served.path).bytes >= share * served.content.length, {
    what: `the origin has given ${share} of it`,
  });
}
