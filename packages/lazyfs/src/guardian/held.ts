import { PantalaError } from '@pantala/base';
import type { WorkerCommand } from './messages.ts';

/** Kernel objects that must outlive a worker. */
export type HeldName = 'access' | 'access-pending' | 'fuse' | 'fuse-pending';

/**
 * The descriptors that the guardian holds, by name. All processes of a generation share the same kernel objects; a
 * mount of another generation has lost what protected it.
 */
export interface Held {
  readonly generation: string;
  readonly descriptors: Readonly<Partial<Record<HeldName, number>>>;
}

/** Whoever holds a worker's descriptors beside it, as that worker sees it. */
export interface Guardian extends Disposable {
  /** 0 while it is gone. */
  readonly pid: number;
  /** Its oom_score_adj. */
  readonly oomScore: number;
  /** Has it hold what there is to hold now. */
  renew(): Promise<void>;
  /** Has the next worker started by another command; it takes over when this process ends. */
  replace(worker: WorkerCommand): void;
  /** Nothing is to be held any more. */
  leave(): Promise<void>;
}

/** The first descriptor after stdin, stdout and stderr, as with systemd's socket activation (sd_listen_fds(3)). */
const FIRST = 3;
const VARIABLE = 'PANTALA_HELD';

/** What a child is started with so that it holds the same: entries for `stdio`, and a variable that names them. */
export function handDown(held: Held): { readonly stdio: number[]; readonly env: Record<string, string> } {
  const names = Object.keys(held.descriptors) as HeldName[];
  return {
    stdio: names.map((name) => held.descriptors[name] as number),
    env: { [VARIABLE]: `${held.generation}:${names.join(',')}` },
  };
}

/** What this process was started with; undefined when that is nothing. @throws `invalid-argument` */
export function inherited(env: NodeJS.ProcessEnv): Held | undefined {
  const text = env[VARIABLE];
  if (text === undefined) return undefined;
  const match = /^([0-9a-f-]{36}):([a-z,-]*)$/.exec(text);
  if (match === null) throw new PantalaError('invalid-argument', `${VARIABLE}="${text.slice(0, 100)}" names nothing`);
  const [, generation, list] = match as unknown as [string, string, string];
  const names = list.split(',').filter((name) => name !== '');
  return { generation, descriptors: Object.fromEntries(names.map((name, index) => [name, FIRST + index])) };
}
