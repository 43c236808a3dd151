import { readFileSync } from 'node:fs';
import type { Program, Role } from '@pantala/testkit';

/** CPU seconds and memory of several processes over a stretch of time. */
export class Meter {
  readonly #programs: ReadonlyMap<string, Program>;
  #cpu = new Map<string, number>();
  #busy = busyShare();

  constructor(roles: readonly Role[], others: Readonly<Record<string, Program>> = {}) {
    this.#programs = new Map([...roles.map((role) => [role.name, role.program] as const), ...Object.entries(others)]);
    this.reset();
  }

  reset(): void {
    this.#cpu = new Map([...this.#programs].map(([name, program]) => [name, program.usage().cpuSeconds]));
    this.#busy = busyShare();
  }

  /** CPU seconds of each process since the reset, and of all together. */
  cpu(): { readonly each: Readonly<Record<string, number>>; readonly total: number } {
    const each: Record<string, number> = {};
    let total = 0;
    for (const [name, program] of this.#programs) {
      const used = program.usage().cpuSeconds - (this.#cpu.get(name) ?? 0);
      each[name] = used;
      total += used;
    }
    return { each, total };
  }

  /** Share of the machine's CPU time that was in use since the reset: near 1, the machine was what was measured. */
  machineBusy(): number {
    const now = busyShare();
    return (now.busy - this.#busy.busy) / Math.max(1, now.all - this.#busy.all);
  }

  /** Bytes: resident, anonymous, and the most that was ever resident. */
  memory(): Readonly<Record<string, { readonly rss: number; readonly rssAnon: number; readonly peakRss: number }>> {
    return Object.fromEntries(
      [...this.#programs].map(([name, program]) => {
        const { rss, rssAnon, peakRss } = program.usage();
        return [name, { rss, rssAnon, peakRss }];
      }),
    );
  }
}

function busyShare(): { readonly busy: number; readonly all: number } {
  const ticks = (readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '').trim().split(/\s+/).slice(1, 9).map(Number);
  const all = ticks.reduce((a, b) => a + b, 0);
  return { busy: all - (ticks[3] ?? 0) - (ticks[4] ?? 0), all };
}
