import { writeSync } from 'node:fs';
import { PantalaError } from '@pantala/base';
import { type DecodeUnit, decodeUnit, type FetchGroup } from '@pantala/rafs';

/** A group of chunks with its stored bytes, to be decoded and checked by whichever thread is free. */
export interface DecodeJob {
  readonly group: FetchGroup;
  /** The bytes of `group.range`. */
  readonly stored: Uint8Array;
  /** A file that takes the chunks, and where the decoded blob begins in it; without it they are only checked. */
  readonly output: { readonly descriptor: number; readonly offset: number } | undefined;
}

export interface DecodeOutcome {
  readonly chunks: number;
  /** Decoded bytes. */
  readonly bytes: number;
  /** What is wrong, unit by unit; nothing of such a unit was written. */
  readonly problems: readonly string[];
}

/** @throws what writing throws */
export function decodeJob({ group, stored, output }: DecodeJob): DecodeOutcome {
  const problems: string[] = [];
  let [chunks, bytes] = [0, 0];
  for (const unit of group.units) {
    const start = unit.range.start - group.range.start;
    const content = checkedUnit(unit, stored.subarray(start, start + unit.range.end - unit.range.start), problems);
    for (const chunk of content) {
      chunks++;
      bytes += chunk.size;
      if (output !== undefined) writeWhole(output.descriptor, chunk.content, output.offset + chunk.offset);
    }
  }
  return { chunks, bytes, problems };
}

function checkedUnit(unit: DecodeUnit, stored: Uint8Array, problems: string[]) {
  try {
    return [...decodeUnit(unit, stored)];
  } catch (error) {
    const { code, message } = PantalaError.from(error);
    if (code !== 'data-loss') throw error;
    problems.push(message);
    return [];
  }
}

function writeWhole(descriptor: number, data: Uint8Array, position: number): void {
  for (let done = 0; done < data.length; ) {
    done += writeSync(descriptor, data, done, data.length - done, position + done);
  }
}
