import { hash32 } from './hash.ts';
import type { Host } from './host.ts';
import type { SchedulingSettings } from './options.ts';
import type { Task } from './task.ts';

/**
 * Which seed fetches which task: the healthy one whose hash with the task is highest, so that a seed that comes or
 * goes moves only its own share of the tasks.
 */
export class SeedRing {
  readonly #seeds = new Map<string, Host>();

  get size(): number {
    return this.#seeds.size;
  }

  update(host: Host): void {
    if (host.seed) this.#seeds.set(host.id, host);
    else this.#seeds.delete(host.id);
  }

  delete(host: Host): void {
    this.#seeds.delete(host.id);
  }

  /** The seed for a task, or undefined when no healthy one is left that did not fail for it. */
  pick(task: Task, now: number): Host | undefined {
    let best: Host | undefined;
    let bestRank = -1;
    for (const seed of this.#seeds.values()) {
      if (!healthy(seed, now) || task.blockedHosts.has(seed.id)) continue;
      if ((task.failedSeeds.get(seed.id) ?? 0) > now) continue;
      const rank = hash32(task.id, hash32(seed.id));
      if (rank > bestRank) {
        best = seed;
        bestRank = rank;
      }
    }
    return best;
  }

  /** A seed that could not be reached is left out for a while that grows. */
  fail(seed: Host, settings: SchedulingSettings, now: number): void {
    seed.pausedUntil = now + Math.min(settings.maxSeedPauseMs, settings.seedPauseMs * 2 ** Math.min(seed.failures, 16));
    seed.failures++;
  }

  recover(seed: Host): void {
    seed.failures = 0;
    seed.pausedUntil = 0;
  }
}

export function healthy(seed: Host, now: number): boolean {
  return seed.reachable && seed.pausedUntil <= now;
}
