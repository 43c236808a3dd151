import { PantalaError } from '@pantala/base';

/** An archive that is none, or goes beyond a limit. @param offset where in the decompressed archive */
export function malformed(offset: number, what: string): PantalaError {
  return new PantalaError('invalid-argument', `the tar is malformed at byte ${offset}: ${what}`, {
    details: { offset },
  });
}

export function cutOff(offset: number, what: string): PantalaError {
  return new PantalaError('data-loss', `the tar is cut off at byte ${offset}: ${what}`, { details: { offset } });
}
