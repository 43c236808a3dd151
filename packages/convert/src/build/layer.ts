import { tmpdir } from 'node:os';
import { PantalaError, throwIfAborted } from '@pantala/base';
import type { TarEntry } from '@pantala/oci';
import { type BlobEnd, type Directory, encodeBootstrap, type FileChunks, type RafsImage } from '@pantala/rafs';
import { TarTree } from '../sources/tar-tree.ts';
import { BlobBuilder, chunkList } from './blob-builder.ts';
import type { BlobSink } from './blob-sink.ts';
import type { BuildPool } from './build-pool.ts';
import { readDirectorySource } from './directory-source.ts';
import { type BuildOptions, type CompiledBuildOptions, compileBuildOptions } from './options.ts';
import { type PrefetchOptions, prefetchedFirst, prefetchNodes, prefetchRanks } from './prefetch.ts';

export interface LayerOptions extends BuildOptions {
  /** Default: nothing. */
  readonly prefetch?: PrefetchOptions;
  /**
   * It is to be merged with lower layers (`mergeLayers`): hard links of a tar may name files of those. Default false:
   * such a link is refused.
   */
  readonly isLayer?: boolean;
  /** Threads and memory that other builds with the same options use, too. Default: its own. */
  readonly pool?: BuildPool;
  /**
   * Chunks of a tar wait here until its end when they are to lie in the blob in another order (prefetch policy `blob`).
   * Default: the system's temporary folder.
   */
  readonly spoolFolder?: string;
  /** Called after each file. */
  readonly progress?: (done: LayerProgress) => void;
  readonly signal?: AbortSignal;
}

/** All that decides what becomes of a layer. */
export type LayerBuild = BuildOptions & Pick<LayerOptions, 'prefetch'>;

export interface LayerProgress {
  readonly files: number;
  /** Of their content. */
  readonly bytes: number;
}

export interface BuiltLayer {
  /** With the real id of the blob; its bootstrap is `encodeBootstrap(image)`. */
  readonly image: RafsImage;
  /** The blob that went to the sink; undefined when nothing did, as for a layer without content of its own. */
  readonly written: { readonly id: string; readonly size: number } | undefined;
  /** Chunk information of that blob, as it may lie beside the bootstrap. */
  readonly meta: BlobEnd['meta'];
  /** Directories that the source does not describe itself, though it has something below them. */
  readonly implied: ReadonlySet<Directory>;
}

/**
 * A local directory as one layer.
 *
 * @throws `not-found`, `permission-denied`, `failed-precondition` when a file changes meanwhile, `invalid-argument` for
 *   options, what the sink throws, the reason of the signal
 */
export async function buildFromDirectory(directory: string, sink: BlobSink, given: LayerOptions): Promise<BuiltLayer> {
  const { prefetch, progress, signal, pool, ...build } = given;
  const options = compileBuildOptions(build);
  await using builder = new BlobBuilder(options, sink, { pool, signal });
  const { root, place, files } = await readDirectorySource(directory, options.chunkSize, signal).catch(
    (error: unknown) => {
      throw PantalaError.from(error);
    },
  );
  const counter = new Counter(progress);
  const ordered =
    prefetch === undefined ? files : prefetchedFirst(files, ({ path }) => path.slice(place.length), prefetch);
  for (const file of ordered) {
    throwIfAborted(signal);
    await builder.addFile(file, file.chunks);
    counter.add(file.size);
  }
  return await finished(builder, options, { root, implied: new Set() }, prefetch);
}

/**
 * The members of a tar as one layer, straight from the stream. Whiteouts stay the files that they are.
 *
 * @throws `invalid-argument` for members that cannot be and for options; what the tar and the sink throw; the reason of
 *   the signal
 */
export async function buildFromTar(
  members: AsyncIterable<TarEntry>,
  sink: BlobSink,
  given: LayerOptions,
): Promise<BuiltLayer> {
  const { prefetch, progress, signal, pool, isLayer = false, spoolFolder = tmpdir(), ...build } = given;
  const options = compileBuildOptions(build);
  const rankOf = prefetchRanks(prefetch);
  const order = rankOf === undefined ? {} : { spoolFolder };
  await using builder = new BlobBuilder(options, sink, { pool, signal, ...order });
  const tree = new TarTree<FileChunks>();
  const counter = new Counter(progress);
  for await (const member of members) {
    if (member.kind !== 'regular') {
      tree.add(member);
      continue;
    }
    const chunks = chunkList(member.size, options.chunkSize);
    await builder.addStream(member.size, member.content(), chunks, rankOf?.(`/${member.path}`));
    tree.addFile(member, chunks);
    counter.add(member.size);
  }
  return await finished(builder, options, tree.finish(isLayer), prefetch);
}

async function finished(
  builder: BlobBuilder,
  options: CompiledBuildOptions,
  tree: { readonly root: Directory; readonly implied: ReadonlySet<Directory> },
  prefetch: PrefetchOptions | undefined,
): Promise<BuiltLayer> {
  const { compressor, digester, chunkSize, inlineBootstrap } = options;
  const described: RafsImage = {
    root: tree.root,
    blobs: [],
    chunkSize,
    compressor,
    digester,
    explicitIds: true,
    blockSize: 4096,
    prefetch: prefetch === undefined ? [] : prefetchNodes(tree.root, prefetch),
  };
  const { blobs, written, meta } = await builder.finish(
    inlineBootstrap ? (known) => encodeBootstrap({ ...described, blobs: known }) : undefined,
  );
  return { image: { ...described, blobs }, written, meta, implied: tree.implied };
}

class Counter {
  readonly #tell: ((done: LayerProgress) => void) | undefined;
  #files = 0;
  #bytes = 0;

  constructor(tell: ((done: LayerProgress) => void) | undefined) {
    this.#tell = tell;
  }

  add(bytes: number): void {
    this.#files += 1;
    this.#bytes += bytes;
    this.#tell?.({ files: this.#files, bytes: this.#bytes });
  }
}
