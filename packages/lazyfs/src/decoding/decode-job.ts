import { writevSync } from 'node:fs';
import { type ErrorCode, PantalaError } from '@pantala/base';
import { type DecodedChunk, type DecodeUnit, decodeUnit } from '@pantala/rafs';

const BLOCK = 4096;
const FILLING = new Uint8Array(BLOCK);

/** Stored bytes that are to be decoded, checked and written to a cache file; travels between threads. */
export interface DecodeJob {
  readonly units: readonly DecodeUnit[];
  /** Where `stored` begins in the stored blob. */
  readonly start: number;
  readonly stored: Uint8Array;
  /** Of the cache file. */
  readonly descriptor: number;
}

export interface DecodeOutcome {
  /** Units whose bytes were wrong, by position, and why; nothing of them was written. */
  readonly wrong: readonly { readonly unit: number; readonly message: string }[];
  /** Why the rest could not be written. */
  readonly failure: { readonly code: ErrorCode; readonly message: string } | undefined;
}

/** Decodes unit by unit, and writes the chunks of each that is right. */
export function decodeIntoFile({ units, start, stored, descriptor }: DecodeJob): DecodeOutcome {
  const wrong: { unit: number; message: string }[] = [];
  try {
    for (const [at, unit] of units.entries()) {
      const bytes = stored.subarray(unit.range.start - start, unit.range.end - start);
      const chunks = rightChunks(unit, bytes);
      if (typeof chunks === 'string') wrong.push({ unit: at, message: chunks });
      else for (const chunk of chunks) writeChunk(descriptor, chunk);
    }
    return { wrong, failure: undefined };
  } catch (error) {
    const { code, message } = PantalaError.from(error);
    return { wrong, failure: { code, message } };
  }
}

/** The chunks, or what is wrong with them. */
function rightChunks(unit: DecodeUnit, bytes: Uint8Array): DecodedChunk[] | string {
  try {
    return [...decodeUnit(unit, bytes)];
  } catch (error) {
    const { code, message } = PantalaError.from(error);
    if (code !== 'data-loss') throw error;
    return message;
  }
}

/** With zeros up to the next block: a program that maps the end of a file sees them. */
function writeChunk(descriptor: number, { offset, content }: DecodedChunk): void {
  const filling = Math.ceil(content.length / BLOCK) * BLOCK - content.length;
  let rest = [content, FILLING.subarray(0, filling)];
  for (let position = offset; rest.length > 0; ) {
    let written = writevSync(descriptor, rest, position);
    position += written;
    rest = rest.flatMap((buffer) => {
      const left = buffer.subarray(Math.min(written, buffer.length));
      written -= buffer.length - left.length;
      return left.length === 0 ? [] : [left];
    });
  }
}
