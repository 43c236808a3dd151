/** Stores every block of two contents with a digest, one of which does not have it, and waits to be killed. */
import { writeSync } from 'node:fs';
import { BLOCK_LENGTH, Geometry, sha256Hex } from '@pantala/base';
import { openStore } from '@pantala/store';
import { type Content, putAll } from './fixture.ts';

const LENGTH = 300 * BLOCK_LENGTH - 5;

/** The same in each process. `right` says whether the content has its digest. */
export function finishedContent(right: boolean): Content {
  const bytes = Buffer.alloc(LENGTH, right ? 'right' : 'wrong');
  const pieceLength = 64 * BLOCK_LENGTH;
  const id = sha256Hex(right ? bytes : 'what it should have been');
  const description = {
    id,
    url: `http://origin.example/v2/x/blobs/sha256:${id}`,
    contentLength: LENGTH,
    pieceLength,
    digest: `sha256:${id}`,
    responseHeaders: {},
  };
  return { description, geometry: new Geometry(LENGTH, pieceLength), bytes };
}

/** @param promote the right one is also said to be right before the end */
async function main(directory: string, promote: boolean): Promise<void> {
  const store = await openStore({ directory });
  for (const right of [true, false]) {
    const content = finishedContent(right);
    const task = await store.create(content.description);
    await putAll(task, content);
    if (right && promote) await task.promote();
  }
  writeSync(1, 'stored\n');
  setInterval(() => {}, 1000);
}

const [, script, directory, promote] = process.argv;
if (script === import.meta.filename) await main(directory as string, promote === 'promote');
