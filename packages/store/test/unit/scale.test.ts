import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sha256Hex } from '@pantala/base';
import { openStore } from '@pantala/store';
import { expect, test } from 'vitest';
import { encodeComplete, encodeCreated, encodeHeader, encodeRuns, encodeUsed } from '../../src/journal-format.ts';
import { content, putAll, scratch } from '../fixture.ts';

const TASKS = 100_000;

function anonymousBytes(): number {
  return Number(/RssAnon:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024;
}

test('100,000 tasks take little memory, are all there, and compact to what is needed', async () => {
  using directory = scratch();
  const bootId = Buffer.from(
    readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').replaceAll(/[^0-9a-f]/g, ''),
    'hex',
  );
  const idOf = (index: number) => sha256Hex(`task ${index}`);
  {
    const records: Buffer[] = [encodeHeader(bootId)];
    for (let serial = 1; serial <= TASKS; serial++) {
      const description = Buffer.from(
        JSON.stringify({
          url: `https://registry.example/v2/library/image-${serial}/blobs/sha256:${idOf(serial)}`,
          responseHeaders: {
            'content-type': 'application/octet-stream',
            etag: `"${serial}"`,
            'docker-content-digest': `sha256:${idOf(serial)}`,
          },
        }),
      );
      const times = { createdAt: Date.now(), usedAt: Date.now() };
      const lengths = { contentLength: 50_000_000 + serial, pieceLength: 4_194_304 };
      records.push(encodeCreated({ serial, id: idOf(serial), ...times, ...lengths, description }));
      records.push(encodeRuns('blocks', serial, [{ first: 0, count: 3052 }]), encodeComplete(serial, Date.now()));
      for (let use = 0; use < 3; use++) records.push(encodeUsed([{ serial, usedAt: Date.now() + use }]));
    }
    writeFileSync(join(directory.path, 'journal'), Buffer.concat(records));
  }
  globalThis.gc?.();
  const before = anonymousBytes();
  await using store = await openStore({ directory: directory.path });
  globalThis.gc?.();
  // Without a forced collection this has the garbage of recovery in it too.
  expect(anonymousBytes() - before).toBeLessThan(60 * 1024 * 1024 * (globalThis.gc === undefined ? 4 : 1));
  expect(store.usage.tasks).toBe(TASKS);
  for (const index of [1, 777, TASKS]) {
    const task = store.get(idOf(index));
    expect([task?.complete, task?.description.responseHeaders.etag]).toEqual([true, `"${index}"`]);
  }
  const source = content(100_000);
  await putAll(await store.create(source.description), source);
  expect(statSync(join(directory.path, 'journal')).size).toBeGreaterThan(TASKS * 300);
});
