import { resolve } from 'node:path';
import { PantalaError } from '@pantala/base';
import { DecodePool, decodeBlobs, exportFlatDisk } from '@pantala/convert';
import { formatSize } from '@pantala/service';
import { Interruption } from '../../interruption.ts';
import { print, printJson } from '../../output.ts';
import { ProgressLine, share } from '../../progress-line.ts';
import { type ImageInputOptions, type OpenedImage, openImage } from './input.ts';
import { checkFree } from './whole-file.ts';

interface ExportOptions extends ImageInputOptions {
  readonly block?: boolean;
  readonly devices?: boolean;
  readonly output: string;
  readonly threads?: number;
  readonly overwrite?: boolean;
  readonly progress: boolean;
}

export async function exportImage(argument: string | undefined, options: ExportOptions): Promise<number> {
  if ((options.block === true) === (options.devices === true)) {
    throw new PantalaError('invalid-argument', 'say --block for one disk image, or --devices for a file for each blob');
  }
  using interruption = new Interruption();
  await using opened = await openImage(argument, options, interruption.signal);
  await using pool = new DecodePool(options.threads);
  using line = new ProgressLine(options.progress && options.json !== true);
  const total = opened.image.blobs.reduce((sum, { compressedSize }) => sum + compressedSize, 0);
  let done = 0;
  const pass = {
    pool,
    signal: interruption.signal,
    progress: (bytes: number) => {
      done += bytes;
      line.show(() => `decoding: ${share(done, total)}`);
    },
  };
  return options.block === true ? exportDisk(opened, options, pass) : exportDevices(opened, options, pass);
}

type Pass = Parameters<typeof decodeBlobs>[2];

async function exportDisk(opened: OpenedImage, options: ExportOptions, pass: Pass): Promise<number> {
  const output = resolve(options.output);
  await checkFree(output, options.overwrite === true);
  if (opened.isInlined) {
    throw new PantalaError('invalid-argument', `${opened.name} is a layer by itself: merge it first`);
  }
  const { bytes } = await exportFlatDisk(opened.blobs, opened.bytes, output, pass);
  if (options.json === true) printJson({ output, bytes });
  else print(`${output}: ${formatSize(bytes)}; mount -t erofs -o loop,ro ${output} DIRECTORY`);
  return 0;
}

async function exportDevices(opened: OpenedImage, options: ExportOptions, pass: Pass): Promise<number> {
  const devices = await decodeBlobs(opened.blobs, resolve(options.output), pass);
  if (options.json === true) printJson({ devices });
  else
    for (const { path, size, reused } of devices) print(`${path}: ${formatSize(size)}${reused ? ', was there' : ''}`);
  return 0;
}
