/** Writes blocks of known content without end, and says on stdout what was stored, until it is killed. */
import { writeSync } from 'node:fs';
import { BLOCK_LENGTH, blockDigest, sha256Hex } from '@pantala/base';
import { openStore, type TaskDescription } from '@pantala/store';

export const KILLED_TASKS = 12;
export const KILLED_BLOCKS = 96;

export function killedTask(index: number): TaskDescription {
  return {
    id: sha256Hex(`killed ${index}`),
    url: `http://origin.example/${index}`,
    contentLength: KILLED_BLOCKS * BLOCK_LENGTH - index,
    pieceLength: 32 * BLOCK_LENGTH,
    responseHeaders: {},
  };
}

/** The right bytes of a block. */
export function killedBlock(index: number, block: number): Buffer {
  const length = block === KILLED_BLOCKS - 1 ? BLOCK_LENGTH - index : BLOCK_LENGTH;
  return Buffer.alloc(length, `block ${block} of ${index};`);
}

async function main(directory: string, seed: number): Promise<void> {
  const store = await openStore({ directory });
  let state = seed;
  const random = (limit: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
  const lane = async () => {
    for (;;) {
      const index = random(KILLED_TASKS);
      const task = await store.create(killedTask(index));
      if (random(40) === 0) {
        // Said before: from here on the task may be empty, whatever was said of it until now.
        writeSync(1, `void ${index}\n`);
        await store.void(task.description.id);
        continue;
      }
      const first = random(KILLED_BLOCKS);
      const count = Math.min(1 + random(8), 32 - (first % 32));
      const blocks = Array.from({ length: count }, (_, i) => killedBlock(index, first + i));
      const digests = Buffer.concat(blocks.map((block) => blockDigest(block)));
      const trust = random(4) === 0 ? 'provisional' : 'checked';
      try {
        await task.write({ first, count }, Buffer.concat(blocks), digests, trust);
      } catch {
        continue;
      }
      if (trust === 'checked' && task.blocks.hasAll({ first, count }))
        writeSync(1, `held ${index} ${first} ${count}\n`);
    }
  };
  await Promise.all([lane(), lane(), lane()]);
}

const [, script, directory, seed] = process.argv;
if (script === import.meta.filename) await main(directory as string, Number(seed));
