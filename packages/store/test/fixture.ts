import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type BlockRun, blockDigest, Geometry, sha256Hex } from '@pantala/base';
import type { StoredTask, TaskDescription, Trust } from '@pantala/store';

/** Content with everything that a store wants to know about it. */
export interface Content {
  readonly description: TaskDescription;
  readonly geometry: Geometry;
  readonly bytes: Buffer;
}

export function content(length: number, pieceLength = 64 * 1024, name = `${length}`): Content {
  const description: TaskDescription = {
    id: sha256Hex(`${name} ${length}`),
    url: `http://origin.example/${name}`,
    contentLength: length,
    pieceLength,
    responseHeaders: { etag: `"${name}"` },
  };
  return { description, geometry: new Geometry(length, pieceLength), bytes: randomBytes(length) };
}

/** Digests of the blocks of a run, as authority would give them. */
export function digestsOf({ geometry, bytes }: Content, run: BlockRun): Buffer {
  return Buffer.concat(
    Array.from({ length: run.count }, (_, i) => {
      const { start, end } = geometry.blockRange(run.first + i);
      return blockDigest(bytes.subarray(start, end));
    }),
  );
}

/** Stores a run of the content, piece by piece. */
export async function put(task: StoredTask, source: Content, run: BlockRun, trust: Trust = 'checked'): Promise<void> {
  const { geometry, bytes } = source;
  for (let first = run.first; first < run.first + run.count; ) {
    const piece = geometry.pieceBlocks(geometry.pieceOfBlock(first));
    const count = Math.min(run.first + run.count, piece.first + piece.count) - first;
    const part = { first, count };
    const { start, end } = geometry.runRange(part);
    await task.write(part, bytes.subarray(start, end), digestsOf(source, part), trust);
    first += count;
  }
}

export async function putAll(task: StoredTask, source: Content): Promise<void> {
  await put(task, source, { first: 0, count: source.geometry.blockCount });
}

/** A directory that is gone afterwards. */
export function scratch(parent: string = tmpdir()): { readonly path: string } & Disposable {
  const path = mkdtempSync(join(parent, 'pantala-store-'));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

/** The numbers of blocks that a task shows. */
export function held(task: StoredTask): number[] {
  return [...task.blocks.runs(true)].flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i));
}
