import { writeSync } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PantalaError } from '@pantala/base';
import {
  allocate,
  copyFileRange,
  fileSystemOf,
  isInMemory,
  punchHole,
  readCached,
  reflink,
  sendfile,
  tryLock,
} from './files.ts';

/** What was found out about one system call. */
export interface CallReport {
  readonly call: string;
  /** What Pantala does with it, and what happens without. */
  readonly use: string;
  readonly works: boolean;
  /** Why it does not work. */
  readonly reason?: string;
}

interface Probe {
  readonly call: string;
  readonly use: string;
  /** Resolves with what the target holds then; undefined when its content does not matter. */
  readonly run: (source: number, target: number) => Promise<Buffer | undefined>;
}

const CONTENT = Buffer.from('Pantala flavescens, the globe skimmer');

const PROBES: readonly Probe[] = [
  {
    call: 'sendfile',
    use: 'uploads and hits; without it bytes are copied through memory',
    async run(source, target) {
      if (sendfile(target, source, 0, CONTENT.length) !== CONTENT.length) throw new Error('it sent another length');
      return CONTENT;
    },
  },
  {
    call: 'preadv2 RWF_NOWAIT',
    use: 'small reads of what the page cache has; without it each goes over another thread (not needed on tmpfs)',
    async run(source, target) {
      const read = isInMemory(`/proc/self/fd/${source}`) ? CONTENT : readCached(source, 0, CONTENT.length);
      if (read === undefined) throw new Error('it does not read what was just written');
      writeSync(target, read, 0, read.length, 0);
      return CONTENT;
    },
  },
  {
    call: 'copy_file_range',
    use: 'outputs; without it bytes are copied through memory',
    async run(source, target) {
      await copyFileRange(source, target, { start: 0, end: CONTENT.length });
      return CONTENT;
    },
  },
  {
    call: 'ioctl FICLONE',
    use: 'outputs that share the disk blocks of the store; without it they are copies',
    async run(source, target) {
      await reflink(source, target);
      return CONTENT;
    },
  },
  {
    call: 'flock',
    use: 'one daemon for each store; without it the number in the lock file decides',
    async run(source) {
      if (!tryLock(source)) throw new Error('a new file is locked');
      return undefined;
    },
  },
  {
    call: 'fallocate',
    use: 'holes and reserved room in files',
    async run(_source, target) {
      await allocate(target, 0, CONTENT.length);
      await punchHole(target, 0, CONTENT.length);
      return undefined;
    },
  },
];

/** Tries every system call on files in `directory` (default: the system's temporary one), for `doctor`. */
export async function selfTest(directory: string = tmpdir()): Promise<CallReport[]> {
  const scratch = await mkdtemp(join(directory, 'pantala-self-test-'));
  try {
    const { type } = await fileSystemOf(scratch);
    const reports: CallReport[] = [];
    for (const { call, use, run } of PROBES) {
      const reason = await failureOf(scratch, run);
      reports.push({
        call,
        use,
        works: reason === undefined,
        ...(reason === undefined ? {} : { reason: `${reason} (on ${type})` }),
      });
    }
    return reports;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function failureOf(scratch: string, run: Probe['run']): Promise<string | undefined> {
  try {
    await using source = await open(join(scratch, 'source'), 'w+');
    await using target = await open(join(scratch, 'target'), 'w+');
    await source.write(CONTENT, 0, CONTENT.length, 0);
    const expected = await run(source.fd, target.fd);
    if (expected === undefined) return undefined;
    const found = Buffer.alloc(expected.length);
    await target.read(found, 0, found.length, 0);
    return found.equals(expected) ? undefined : 'it succeeded but the bytes are wrong';
  } catch (error) {
    return PantalaError.from(error).message;
  }
}
