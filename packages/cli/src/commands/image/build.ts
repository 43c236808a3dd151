import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { PantalaError } from '@pantala/base';
import {
  BlobFile,
  type BuiltLayer,
  buildFromDirectory,
  buildFromTar,
  compileBuildOptions,
  type LayerOptions,
  type LayerProgress,
  prefetchNodes,
  readBootstrapFile,
} from '@pantala/convert';
import { decompressed, walkTar } from '@pantala/oci';
import { encodeBootstrap, mergeLayers, type RafsImage, type WhiteoutSpec } from '@pantala/rafs';
import { formatSize } from '@pantala/service';
import { Interruption } from '../../interruption.ts';
import { type CommonOptions, counted, print, printJson } from '../../output.ts';
import { ProgressLine } from '../../progress-line.ts';
import { type BlobOptions, buildOptionsOf, oneOf, type PrefetchChoice, prefetchOf } from './build-options.ts';
import { inFile } from './misnamed.ts';
import { writeWholeFile } from './whole-file.ts';

interface BuildCommandOptions extends CommonOptions, BlobOptions, PrefetchChoice {
  readonly type?: string;
  readonly bootstrap?: string;
  readonly blobDir: string;
  readonly blobInlineMeta?: boolean;
  readonly features?: string;
  readonly parentBootstrap?: string;
  readonly whiteoutSpec: string;
  readonly outputJson?: string;
  readonly progress: boolean;
}

/** Types of sources, by nydus-image's names and by shorter ones. A tar's compression is told by its first bytes. */
const TYPES = {
  directory: 'directory',
  'dir-rafs': 'directory',
  tar: 'tar',
  'tar-rafs': 'tar',
  targz: 'tar',
  'targz-rafs': 'tar',
} as const;

export const WHITEOUT_SPECS: readonly WhiteoutSpec[] = ['oci', 'overlayfs', 'none'];

/** Bytes of a tar that are read at once. */
const READ_LENGTH = 1024 * 1024;

export async function buildImage(source: string, options: BuildCommandOptions): Promise<number> {
  const began = performance.now();
  const kind = await kindOf(source, options.type);
  const inline = options.blobInlineMeta === true;
  if (inline === (options.bootstrap !== undefined)) {
    throw new PantalaError('invalid-argument', 'say where the bootstrap goes: --bootstrap FILE, or --blob-inline-meta');
  }
  if (inline && options.parentBootstrap !== undefined) {
    throw new PantalaError(
      'invalid-argument',
      'a bootstrap in its blob is of one layer: use --bootstrap with a parent',
    );
  }
  const spec = oneOf('--whiteout-spec', options.whiteoutSpec, WHITEOUT_SPECS);
  const parent =
    options.parentBootstrap === undefined ? undefined : (await readBootstrapFile(options.parentBootstrap)).image;
  using interruption = new Interruption();
  using line = new ProgressLine(options.progress && options.json !== true);
  const prefetch = await prefetchOf(options, source === '-');
  const blobOptions = await buildOptionsOf(options);
  const layerOptions: LayerOptions = {
    ...blobOptions,
    toc: hasToc(options.features),
    inlineBootstrap: inline,
    isLayer: parent !== undefined,
    spoolFolder: options.blobDir,
    signal: interruption.signal,
    progress: ({ files, bytes }: LayerProgress) => line.show(() => `building: ${files} files, ${formatSize(bytes)}`),
    ...(prefetch === undefined ? {} : { prefetch }),
  };
  // Before a folder is made for nothing.
  compileBuildOptions(blobOptions);
  await using blob = await BlobFile.create(options.blobDir);
  const built = await buildLayer(source, kind, blob, layerOptions).catch((thrown: unknown) => {
    throw kind === 'tar' ? inFile(source === '-' ? 'stdin' : source, thrown) : thrown;
  });
  if (built.written !== undefined) await blob.keep(built.written.id);
  let { image } = built;
  if (parent !== undefined) {
    const merged = mergeLayers([parent, image], { whiteouts: spec });
    image = { ...merged, prefetch: prefetch === undefined ? [] : prefetchNodes(merged.root, prefetch) };
  }
  if (options.bootstrap !== undefined) await writeWholeFile(options.bootstrap, [encodeBootstrap(image)]);
  line.clear();
  const seconds = (performance.now() - began) / 1000;
  await report({ ...built, image }, options, { build: Number(seconds.toFixed(3)) });
  return 0;
}

async function kindOf(source: string, type: string | undefined): Promise<'directory' | 'tar'> {
  if (type !== undefined) return TYPES[oneOf('--type', type, Object.keys(TYPES) as (keyof typeof TYPES)[])];
  if (source === '-') return 'tar';
  return (await stat(source)).isDirectory() ? 'directory' : 'tar';
}

function hasToc(features: string | undefined): boolean {
  if (features === undefined) return false;
  const unknown = features.split(',').find((feature) => feature !== 'blob-toc');
  if (unknown !== undefined) throw new PantalaError('invalid-argument', `--features knows blob-toc, not ${unknown}`);
  return true;
}

function buildLayer(
  source: string,
  kind: 'directory' | 'tar',
  blob: BlobFile,
  options: LayerOptions,
): Promise<BuiltLayer> {
  if (kind === 'directory') {
    if (source === '-') throw new PantalaError('invalid-argument', 'a directory does not come from stdin');
    return buildFromDirectory(source, blob, options);
  }
  const stop = options.signal === undefined ? {} : { signal: options.signal };
  const stream = source === '-' ? process.stdin : createReadStream(source, { highWaterMark: READ_LENGTH });
  return buildFromTar(walkTar(decompressed(stream, { ...stop, frees: true }), stop), blob, options);
}

/** For people on stdout, for programs on stdout or in a file; the file has the keys of nydus-image. */
async function report(
  { image, written }: BuiltLayer,
  options: BuildCommandOptions,
  seconds: Readonly<Record<string, number>>,
): Promise<void> {
  const result = reportOf(image, options.bootstrap ?? '', seconds);
  if (options.outputJson !== undefined) {
    await writeWholeFile(options.outputJson, [Buffer.from(`${JSON.stringify(result, undefined, 2)}\n`)]);
  }
  const own = { blob: written?.id, blobBytes: written?.size ?? 0 };
  if (options.json === true) printJson({ ...result, ...own });
  else {
    print(
      written === undefined
        ? 'no new blob: the layer has no content of its own'
        : `blob ${written.id}: ${formatSize(written.size)}`,
    );
    if (options.bootstrap !== undefined)
      print(`bootstrap ${options.bootstrap}: ${counted(image.blobs.length, 'blob')}`);
  }
}

/** The report of nydus-image's `--output-json`. */
export function reportOf(image: RafsImage, bootstrap: string, seconds: Readonly<Record<string, number>>) {
  return {
    version: 'pantala',
    bootstrap,
    blobs: image.blobs.map(({ id }) => id),
    external_bootstrap: '',
    external_blobs: [],
    trace: { consumed_time: seconds, registered_events: {} },
    fs_version: '6',
    compressor: image.compressor,
  };
}
