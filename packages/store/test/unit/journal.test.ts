import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Journal } from '../../src/journal.ts';
import {
  CREATED_FIXED_LENGTH,
  encodeBare,
  encodeCreated,
  encodeRuns,
  type JournalRecord,
} from '../../src/journal-format.ts';
import { scratch } from '../fixture.ts';

const BOOT = Buffer.alloc(16, 1);

function created(serial: number): Buffer {
  const id = serial.toString(16).padStart(64, '0');
  const description = Buffer.from(JSON.stringify({ url: `http://origin.example/${serial}` }));
  return encodeCreated({ serial, id, createdAt: 1, usedAt: 2, contentLength: 3, pieceLength: 16_384, description });
}

function recover(path: string): { journal: Journal; records: JournalRecord[]; offsets: Map<number, number> } {
  const records: JournalRecord[] = [];
  const offsets = new Map<number, number>();
  const { journal } = Journal.recover(path, BOOT, (record, offset) => {
    records.push(record.kind === 'created' ? { ...record, description: Buffer.from(record.description) } : record);
    if (record.kind === 'created') offsets.set(record.serial, offset);
  });
  return { journal, records, offsets };
}

test('a compaction keeps what was appended while it ran, and knows where everything went', async () => {
  using directory = scratch();
  const path = join(directory.path, 'journal');
  const { journal } = recover(path);
  const offsets = new Map<number, number>();
  for (let serial = 1; serial <= 3000; serial++) {
    offsets.set(serial, journal.append(created(serial)));
    journal.append(encodeRuns('blocks', serial, [{ first: 0, count: 1 }]));
  }
  await journal.flushed();
  const before = journal.size;
  const snapshots = function* () {
    for (let serial = 2990; serial <= 3000; serial++) {
      // Something is appended in the middle of it.
      if (serial === 2995) {
        offsets.set(5000, journal.append(created(5000)));
        journal.append(encodeBare('removed', 2990));
      }
      yield { records: created(serial), moved: (offset: number) => void offsets.set(serial, offset) };
    }
  };
  await journal.compact(snapshots(), (start, by) => {
    for (const [serial, offset] of offsets) if (offset >= start) offsets.set(serial, offset + by);
  });
  expect(journal.size).toBeLessThan(before / 10);
  journal.append(encodeBare('void', 5000));
  for (const serial of [2990, 3000, 5000]) {
    const bytes = journal.readAt((offsets.get(serial) as number) + CREATED_FIXED_LENGTH, 30);
    expect(bytes.toString()).toContain('http://origin.example/');
  }
  journal.close();
  const again = recover(path);
  const kinds = again.records.map((record) => `${record.kind} ${record.kind === 'used' ? '' : record.serial}`);
  const snapshot = Array.from({ length: 11 }, (_, i) => `created ${2990 + i}`);
  expect(kinds).toEqual([...snapshot, 'created 5000', 'removed 2990', 'void 5000']);
  for (const [serial, offset] of again.offsets) expect(offsets.get(serial)).toBe(offset);
  again.journal.close();
});

test('records of one turn are written together, and are read as they were written', async () => {
  using directory = scratch();
  const path = join(directory.path, 'journal');
  const { journal } = recover(path);
  const runs = Array.from({ length: 40_000 }, (_, i) => ({ first: i * 2, count: 1 }));
  journal.append(created(1));
  journal.append(encodeRuns('blocks', 1, runs));
  await journal.flushed();
  journal.close();
  const { journal: again, records } = recover(path);
  expect(records.flatMap((record) => (record.kind === 'blocks' ? record.runs : []))).toEqual(runs);
  again.close();
});
