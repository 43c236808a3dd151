import { join } from 'node:path';
import { run } from '../program.ts';

export interface CorpusOptions {
  /** Files of its largest directory. */
  readonly many?: number;
  /** Bytes of a file that is mostly a hole; none without it. */
  readonly large?: number;
}

/** Makes a directory with every kind of entry that an image can hold: needs root, and python3. */
export async function makeCorpus(directory: string, options: CorpusOptions = {}): Promise<void> {
  const { many, large } = options;
  await run('python3', [
    join(import.meta.dirname, 'corpus.py'),
    directory,
    ...(many === undefined ? [] : ['--many', String(many)]),
    ...(large === undefined ? [] : ['--large', String(large)]),
  ]);
}
