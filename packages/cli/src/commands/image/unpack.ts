import { pipeline } from 'node:stream/promises';
import { FileContent, type Loss, TarUnpacking, type UnpackCount, unpackDirectory } from '@pantala/convert';
import { writeTar } from '@pantala/oci';
import type { Directory, RegularFile } from '@pantala/rafs';
import { formatSize } from '@pantala/service';
import { Interruption } from '../../interruption.ts';
import { note, print, printJson } from '../../output.ts';
import { ProgressLine } from '../../progress-line.ts';
import { type ImageInputOptions, openImage } from './input.ts';
import { checkFree, writeWholeFile } from './whole-file.ts';

interface UnpackOptions extends ImageInputOptions {
  readonly output: string;
  readonly overwrite?: boolean;
  readonly progress: boolean;
}

interface UnpackParts {
  readonly content: (file: RegularFile) => AsyncIterable<Uint8Array>;
  readonly progress: (done: UnpackCount) => void;
  readonly signal: AbortSignal;
}

interface Unpacked extends UnpackCount {
  readonly lost: readonly Loss[];
}

export async function unpackImage(argument: string | undefined, options: UnpackOptions): Promise<number> {
  using interruption = new Interruption();
  await using opened = await openImage(argument, options, interruption.signal);
  using line = new ProgressLine(options.progress && options.json !== true);
  const files = new FileContent(opened.blobs, interruption.signal);
  const content = (file: RegularFile) => files.read(file);
  const progress = ({ entries, bytes }: UnpackCount): void =>
    line.show(() => `unpacking: ${entries} entries, ${formatSize(bytes)}`);
  const { root } = opened.image;
  const isTar = options.output === '-' || options.output.endsWith('.tar');
  const unpacked = isTar
    ? await unpackTar(root, options, { content, progress, signal: interruption.signal })
    : await unpackDirectory(root, options.output, { content, progress, signal: interruption.signal });
  line.clear();
  report(unpacked, options);
  return 0;
}

async function unpackTar(
  root: Directory,
  { output, overwrite }: UnpackOptions,
  { signal, ...parts }: UnpackParts,
): Promise<Unpacked> {
  let count: UnpackCount = { entries: 0, bytes: 0 };
  const unpacking = new TarUnpacking(root, {
    content: parts.content,
    progress: (now) => {
      count = now;
      parts.progress(now);
    },
  });
  const tar = writeTar(unpacking.members());
  if (output === '-') {
    await pipeline(tar, process.stdout, { signal, end: false });
  } else {
    await checkFree(output, overwrite === true);
    await writeWholeFile(output, tar, signal);
  }
  return { ...count, lost: unpacking.lost };
}

function report({ entries, bytes, lost }: Unpacked, options: UnpackOptions): void {
  if (options.json === true && options.output !== '-') printJson({ output: options.output, entries, bytes, lost });
  for (const { what, count, path, reason } of lost) {
    note(`not restored: ${what} of ${count} entries, the first ${path}: ${reason}`);
  }
  if (options.json === true || options.output === '-') return;
  print(`${options.output}: ${entries} entries, ${formatSize(bytes)}`);
}
