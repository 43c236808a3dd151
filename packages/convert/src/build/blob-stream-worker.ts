import { createHash } from 'node:crypto';
import { parentPort } from 'node:worker_threads';
import type { StreamAnswer, StreamParts, StreamRequest } from './blob-stream.ts';
import { writeWholeSync } from './whole-writes.ts';

/** Bytes that are digested before they are written: they are still in the cache of a core then. */
const STEP_LENGTH = 256 * 1024;

let hash = createHash('sha256');

parentPort?.on('message', (request: StreamRequest) => {
  if (request.kind === 'restart') hash = createHash('sha256');
  else parentPort?.postMessage(answerTo(request));
});

function answerTo(request: Exclude<StreamRequest, { readonly kind: 'restart' }>): StreamAnswer {
  if (request.kind === 'digest') return { digest: hash.copy().digest() };
  try {
    digestAndWrite(request);
    return {};
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    return { error: { message, code } };
  }
}

function digestAndWrite({ parts, descriptor }: StreamParts): void {
  for (const step of stepsOf(parts)) {
    for (const part of step) hash.update(part);
    if (descriptor !== undefined) writeWholeSync(descriptor, step);
  }
}

/** The same bytes in portions of about STEP_LENGTH. */
function* stepsOf(parts: readonly Uint8Array[]): Generator<readonly Uint8Array[], void, undefined> {
  let step: Uint8Array[] = [];
  let length = 0;
  for (const part of parts) {
    for (let at = 0; at < part.length; at += STEP_LENGTH) {
      const piece = part.subarray(at, at + STEP_LENGTH);
      step.push(piece);
      length += piece.length;
      if (length < STEP_LENGTH) continue;
      yield step;
      step = [];
      length = 0;
    }
  }
  if (length > 0) yield step;
}
