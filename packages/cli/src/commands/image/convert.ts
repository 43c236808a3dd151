import { PantalaError } from '@pantala/base';
import {
  BuildCache,
  type ConversionEvent,
  type ConvertOptions,
  type ConvertReport,
  convertImage,
  openChunkDictionary,
  type PlatformChoice,
  type RevertReport,
  revertImage,
} from '@pantala/convert';
import { formatPlatform, openImageSource, parsePlatformText } from '@pantala/oci';
import { formatSize } from '@pantala/service';
import { counted, note, print, printJson } from '../../output.ts';
import { type ProgressLine, share } from '../../progress-line.ts';
import { type BlobOptions, buildOptionsOf, oneOf, type PrefetchChoice, prefetchOf } from './build-options.ts';
import { type Moving, type MovingOptions, moving } from './moving.ts';

interface ConvertCommandOptions extends MovingOptions, BlobOptions, PrefetchChoice {
  readonly platform: readonly string[];
  readonly allPlatforms?: boolean;
  readonly mergePlatform?: boolean;
  readonly withReferrer?: boolean;
  readonly oci?: boolean;
  readonly buildCache?: string;
  readonly reverse?: boolean;
  readonly layerCompression: string;
  readonly workDir?: string;
}

export async function convert(from: string, to: string, options: ConvertCommandOptions): Promise<number> {
  return await moving(from, to, options, (opened) => convertBetween(opened, options));
}

async function convertBetween(
  { source, target, access, line, signal, common: given }: Moving,
  options: ConvertCommandOptions,
): Promise<void> {
  const platforms = platformsOf(options);
  const common = {
    ...(platforms === undefined ? {} : { platforms }),
    oci: options.oci ?? false,
    ...given,
    ...(options.workDir === undefined ? {} : { workFolder: options.workDir }),
  };
  if (options.reverse === true) {
    const compression = oneOf('--layer-compression', options.layerCompression, ['gzip', 'zstd', 'none']);
    const report = await revertImage(source, target, {
      ...common,
      compression,
      progress: (event) => {
        if (event.kind === 'entries') line.show(() => `packing: ${event.entries} entries, ${formatSize(event.bytes)}`);
      },
    });
    line.clear();
    tellReverted(target.name, report, options.json === true);
    return;
  }
  await using opened = new AsyncDisposableStack();
  const { chunkDict, ...blob } = options;
  const dictionary = chunkDict === undefined ? undefined : await openImageSource(dictionaryName(chunkDict), access);
  if (dictionary !== undefined) opened.use(dictionary);
  const cache =
    options.buildCache === undefined ? undefined : opened.use(await BuildCache.open(options.buildCache, access));
  const prefetch = await prefetchOf(options);
  const lines = new LayerLines(line, options.json === true);
  const convertOptions: ConvertOptions = {
    ...common,
    build: await buildOptionsOf(blob),
    mergeIndex: options.mergePlatform ?? false,
    referrer: options.withReferrer ?? false,
    ...(prefetch === undefined ? {} : { prefetch }),
    ...(dictionary === undefined ? {} : { dictionary: await openChunkDictionary(dictionary, { signal }) }),
    ...(cache === undefined ? {} : { cache }),
    progress: (event) => lines.add(event),
  };
  const report = await convertImage(source, target, convertOptions);
  line.clear();
  tellConverted(target.name, report, options.json === true);
}

function platformsOf({ platform, allPlatforms }: ConvertCommandOptions): PlatformChoice {
  if (allPlatforms === true) {
    if (platform.length > 0) throw new PantalaError('invalid-argument', 'say --platform or --all-platforms, not both');
    return 'all';
  }
  return platform.length === 0 ? undefined : platform.flatMap((text) => text.split(',')).map(parsePlatformText);
}

/** An image's name, also as nydusify has it: `bootstrap:registry:REFERENCE`. */
function dictionaryName(text: string): string {
  return text.replace(/^bootstrap:registry:/, '');
}

/** A line for each layer that is done, and one that is drawn over and over for those on their way. */
class LayerLines {
  readonly #line: ProgressLine;
  readonly #json: boolean;
  readonly #running = new Map<string, { readonly read: number; readonly size: number; readonly text: string }>();

  constructor(line: ProgressLine, json: boolean) {
    this.#line = line;
    this.#json = json;
  }

  add(event: ConversionEvent): void {
    if (event.kind === 'layer') {
      const { layer, read } = event;
      this.#running.set(layer.digest, { read, size: layer.size, text: `layer ${layer.index + 1} of ${layer.count}` });
      this.#line.show(() => this.#text());
    } else if (event.kind === 'layer-done') {
      this.#running.delete(event.layer.digest);
      this.#done(event);
    }
  }

  #text(): string {
    return [...this.#running.values()].map(({ text, read, size }) => `${text}: ${share(read, size)}`).join('; ');
  }

  #done({ layer, blob, cached }: ConversionEvent & { readonly kind: 'layer-done' }): void {
    const { digest, size, index, count, platform } = layer;
    if (this.#json) {
      printJson({
        layer: digest,
        platform: formatPlatform(platform),
        bytes: size,
        blob: blob?.digest,
        blobBytes: blob?.size,
        cached,
      });
      return;
    }
    this.#line.clear();
    const result = blob === undefined ? 'no data' : `${formatSize(blob.size)}, ${blob.digest}`;
    note(
      `layer ${index + 1} of ${count} (${formatPlatform(platform)}): ${formatSize(size)} -> ${result}${cached ? ', from the cache' : ''}`,
    );
  }
}

function tellConverted(name: string, report: ConvertReport, json: boolean): void {
  const { digest, mediaType } = report;
  const images = report.images.map(({ platform, ...image }) => ({ platform: formatPlatform(platform), ...image }));
  if (json) {
    printJson({ target: name, digest, mediaType, images });
    return;
  }
  for (const { platform, layers, sourceBytes, blobs, bootstrapLayerBytes } of images) {
    const bytes = blobs.reduce((sum, { size }) => sum + size, bootstrapLayerBytes);
    print(
      `${platform}: ${counted(layers, 'layer')} of ${formatSize(sourceBytes)} -> ${counted(blobs.length, 'blob')} and a bootstrap, ${formatSize(bytes)}`,
    );
  }
  print(`${name}@${digest}`);
}

function tellReverted(name: string, report: RevertReport, json: boolean): void {
  const { digest, mediaType } = report;
  const images = report.images.map(({ platform, ...image }) => ({ platform: formatPlatform(platform), ...image }));
  for (const { lost } of images) {
    for (const { what, count, path, reason } of lost) {
      note(`not restored: ${what} of ${count} entries, the first ${path}: ${reason}`);
    }
  }
  if (json) {
    printJson({ target: name, digest, mediaType, images });
    return;
  }
  for (const { platform, layer } of images) print(`${platform}: one layer of ${formatSize(layer.size)}`);
  print(`${name}@${digest}`);
}
