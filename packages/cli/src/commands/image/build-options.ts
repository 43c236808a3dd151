import { readFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import { PantalaError } from '@pantala/base';
import { type BuildOptions, type PrefetchOptions, type PrefetchPolicy, readBootstrapFile } from '@pantala/convert';
import type { Digester, RafsImage } from '@pantala/rafs';
import { parseSize } from '@pantala/service';

/** How blobs are made, as the command line has it: the names are nydus-image's. */
export interface BlobOptions {
  readonly compressor?: string;
  readonly digester?: string;
  readonly chunkSize?: string;
  readonly batchSize?: string;
  readonly chunkDict?: string;
  readonly threads?: number;
}

export interface PrefetchChoice {
  readonly prefetchPolicy?: string;
  readonly prefetchFiles?: string;
}

const COMPRESSORS = ['zstd', 'lz4_block', 'none'] as const;
const DIGESTERS = ['blake3', 'sha256'] as const;
const POLICIES = ['none', 'fs', 'blob'] as const;

/** @throws `invalid-argument` naming the option; `not-found` for a dictionary */
export async function buildOptionsOf(given: BlobOptions): Promise<BuildOptions> {
  const { compressor, digester, chunkSize, batchSize, chunkDict, threads } = given;
  return {
    ...(compressor === undefined ? {} : { compressor: oneOf('--compressor', compressor, COMPRESSORS) }),
    ...(digester === undefined ? {} : { digester: oneOf('--digester', digester, DIGESTERS) satisfies Digester }),
    ...(chunkSize === undefined ? {} : { chunkSize: sizeOf('--chunk-size', chunkSize) }),
    ...(batchSize === undefined ? {} : { batchSize: sizeOf('--batch-size', batchSize) }),
    ...(chunkDict === undefined ? {} : { dictionaries: [await dictionaryOf(chunkDict)] }),
    ...(threads === undefined ? {} : { workers: threads }),
  };
}

export function oneOf<Choice extends string>(option: string, text: string, choices: readonly Choice[]): Choice {
  const found = choices.find((choice) => choice === text);
  if (found === undefined)
    throw new PantalaError('invalid-argument', `${option} is one of ${choices.join(', ')}, not ${text}`);
  return found;
}

/** `1MiB`, a number of bytes, or hexadecimal as nydus-image takes it. @throws `invalid-argument` */
export function sizeOf(option: string, text: string): number {
  const size = /^0x[0-9a-f]{1,12}$/i.test(text) ? Number(text) : parseSize(text);
  if (size === undefined)
    throw new PantalaError('invalid-argument', `${option} ${text} is no size such as 1MiB or 0x100000`);
  return size;
}

/** `bootstrap=FILE`, or the file alone. */
async function dictionaryOf(text: string): Promise<RafsImage> {
  const [kind, path] = text.includes('=') ? splitAt(text, text.indexOf('=')) : ['bootstrap', text];
  if (kind !== 'bootstrap' || path === '') {
    throw new PantalaError('invalid-argument', `--chunk-dict is bootstrap=FILE, not ${text}`);
  }
  return (await readBootstrapFile(path)).image;
}

function splitAt(text: string, index: number): [string, string] {
  return [text.slice(0, index), text.slice(index + 1)];
}

/** Bytes of a list of files to prefetch. */
const MAX_PREFETCH_LIST = 16 * 1024 * 1024;

/**
 * What is to be prefetched: paths and patterns, a line each, from `--prefetch-files`, else from stdin where that is
 * no terminal, as nydus-image has it. An empty list means everything.
 *
 * @param stdinIsTaken the source comes from there
 */
export async function prefetchOf(
  { prefetchPolicy, prefetchFiles }: PrefetchChoice,
  stdinIsTaken = false,
): Promise<PrefetchOptions | undefined> {
  const policy: PrefetchPolicy = oneOf('--prefetch-policy', prefetchPolicy ?? 'none', POLICIES);
  if (policy === 'none') {
    if (prefetchFiles !== undefined) {
      throw new PantalaError('invalid-argument', '--prefetch-files needs --prefetch-policy fs or blob');
    }
    return undefined;
  }
  const list = await prefetchList(prefetchFiles, stdinIsTaken);
  if (list.length > MAX_PREFETCH_LIST) {
    throw new PantalaError(
      'invalid-argument',
      `the list of files to prefetch has more than ${MAX_PREFETCH_LIST} bytes`,
    );
  }
  const patterns = list.split('\n').filter((line) => line.trim() !== '');
  return patterns.length === 0 ? { policy } : { policy, patterns };
}

async function prefetchList(file: string | undefined, stdinIsTaken: boolean): Promise<string> {
  if (file !== undefined && file !== '-') return readFile(file, 'utf8');
  if (stdinIsTaken) {
    if (file === '-') throw new PantalaError('invalid-argument', 'stdin cannot be the source and the list of files');
    return '';
  }
  return file === '-' || !process.stdin.isTTY ? text(process.stdin) : '';
}
