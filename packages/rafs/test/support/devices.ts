import { createHash } from 'node:crypto';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import type { ByteString } from '@pantala/base';
import type { EntryFacts, TreeFacts } from '@pantala/testkit';
import { type Chunk, type RafsImage, walk } from '../../src/index.ts';
import { factsOf } from './facts.ts';

/** What a generated chunk holds: something else than any other. */
function contentOf({ blobIndex, index, uncompressedSize }: Chunk): Buffer {
  return Buffer.alloc(uncompressedSize, `chunk ${index} of blob ${blobIndex}, `);
}

/** The blobs of a generated image as decoded files, which the kernel takes as devices; in order. */
export function writeDevices(image: RafsImage, folder: string): string[] {
  const paths = image.blobs.map((_, index) => `${folder}/device-${index}`);
  const files = paths.map((path, index) => {
    const file = openSync(path, 'w');
    ftruncateSync(file, image.blobs[index]?.uncompressedSize);
    return file;
  });
  const written = new Set<Chunk>();
  for (const { node } of walk(image.root)) {
    if (node.kind !== 'regular') continue;
    for (const chunk of node.content) {
      if (written.has(chunk)) continue;
      written.add(chunk);
      const content = contentOf(chunk);
      writeSync(files[chunk.blobIndex] as number, content, 0, content.length, chunk.uncompressedOffset);
    }
  }
  for (const file of files) closeSync(file);
  return paths;
}

/** The tree with its content as it must appear when the image is mounted on those devices. */
export function mountedFacts(image: RafsImage): TreeFacts {
  const facts = new Map<ByteString, EntryFacts>(factsOf(image.root));
  for (const { path, node } of walk(image.root)) {
    if (node.kind !== 'regular') continue;
    const sha = createHash('sha256');
    for (const chunk of node.content) sha.update(contentOf(chunk));
    const name = path.slice(1);
    facts.set(name, { ...(facts.get(name) as EntryFacts), sha: sha.digest('hex') });
  }
  return facts;
}
