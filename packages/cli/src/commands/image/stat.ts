import { type ImageStatistics, imageStatistics, sharedChunks } from '@pantala/convert';
import { formatSize } from '@pantala/service';
import { counted, print, printJson, table } from '../../output.ts';
import { type ImageInputOptions, openImage } from './input.ts';

interface StatOptions extends ImageInputOptions {
  readonly target?: string;
}

export async function statImage(argument: string | undefined, options: StatOptions): Promise<number> {
  await using opened = await openImage(argument, options);
  const { image, bytes } = opened;
  const statistics = imageStatistics(image, bytes.length);
  const shared = options.target === undefined ? undefined : await sharedWith(image, options);
  if (options.json === true) {
    printJson({ ...statistics, ...(shared === undefined ? {} : { target: options.target, ...shared }) });
    return 0;
  }
  for (const line of lines(statistics)) print(line);
  if (shared !== undefined) {
    print('');
    print(`${amount(shared.shared)} are in ${options.target} too, ${amount(shared.own)} are not`);
  }
  return 0;
}

async function sharedWith(image: Parameters<typeof sharedChunks>[0], { target, ...options }: StatOptions) {
  const { bootstrap: _, blobDir: __, ...rest } = options;
  await using other = await openImage(target, rest);
  return sharedChunks(image, other.image);
}

function lines(statistics: ImageStatistics): string[] {
  const { kinds, lazyStart, referenced, unique } = statistics;
  const saved = referenced.bytes - unique.bytes;
  const start = lazyStart.bootstrapBytes + lazyStart.metadataBytes + lazyStart.prefetchBytes;
  return [
    table([
      ['entries', `${statistics.entries} (${statistics.hardLinks} of them further names of a file)`],
      [
        '',
        Object.entries(kinds)
          .flatMap(([kind, count]) => (count > 0 ? [`${count} ${kind}`] : []))
          .join(', '),
      ],
      ['content', formatSize(statistics.fileBytes)],
      ['stored', `${formatSize(statistics.storedBytes)} in ${counted(statistics.blobs.length, 'blob')}`],
      ['chunks', `${amount(referenced)}, ${amount(unique)} without repetitions: ${formatSize(saved)} saved`],
      [
        'lazy start',
        `${formatSize(start)}: bootstrap ${formatSize(lazyStart.bootstrapBytes)}, chunk information ${formatSize(lazyStart.metadataBytes)}, ${lazyStart.prefetchFiles} files prefetched ${formatSize(lazyStart.prefetchBytes)}`,
      ],
    ]),
    '',
    table([
      ['BLOB', 'STORED', 'DECODED', 'CHUNKS', 'USED'],
      ...statistics.blobs.map(({ id, storedBytes, decodedBytes, chunks, used }) => [
        id,
        formatSize(storedBytes),
        formatSize(decodedBytes),
        String(chunks),
        `${used.chunks} (${formatSize(used.bytes)})`,
      ]),
    ]),
  ];
}

function amount({ chunks, bytes }: { readonly chunks: number; readonly bytes: number }): string {
  return `${chunks} chunks of ${formatSize(bytes)}`;
}
