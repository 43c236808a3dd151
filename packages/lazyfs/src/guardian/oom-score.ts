import { readFileSync, writeFileSync } from 'node:fs';

/** Of this process (proc_pid_oom_score_adj(5)): -1000 is never taken by the OOM killer, 1000 before all others. */
const PATH = '/proc/self/oom_score_adj';

export const NEVER_TAKEN = -1000;
const ORDINARY = 0;
const TAKEN_FIRST = 1000;
/** How much earlier than its guardian a worker is taken. */
const EARLIER = 500;

export function oomScore(): number {
  return Number(readFileSync(PATH, 'utf8'));
}

/**
 * @returns whether it was allowed: raising always is, lowering down to what a process with CAP_SYS_RESOURCE has set
 *   last, for this one or the one that started it; further with that capability only
 */
export function setOomScore(score: number): boolean {
  try {
    writeFileSync(PATH, String(score));
    return true;
  } catch {
    return false;
  }
}

/** Has the OOM killer never take this process, or as late as may be said. @returns what it is now */
export function spareFromOom(): number {
  // Whoever started it may have raised its own in favour of the guardian before.
  if (!setOomScore(NEVER_TAKEN) && oomScore() > ORDINARY) setOomScore(ORDINARY);
  return oomScore();
}

/** What a guardian has for itself is not for the workers that it starts. */
export function giveUpSparing(): void {
  if (oomScore() < ORDINARY) setOomScore(ORDINARY);
}

/** The OOM killer takes this process, whom another one replaces, rather than a guardian that it may take. */
export function offerBefore(guardian: number): void {
  if (guardian === NEVER_TAKEN) return;
  const score = Math.min(TAKEN_FIRST, Math.max(ORDINARY, guardian) + EARLIER);
  if (oomScore() < score) setOomScore(score);
}
