import { PantalaError } from '@pantala/base';

/**
 * A field of a file that says what cannot be. Code `data-loss`; `details` has `file`, `field` and `offset`.
 *
 * @param file what is read: `bootstrap`, `blob <id>`
 * @param field as the format calls it
 * @param offset of the field in the file, bytes
 * @param reason what it says and what it may say: `is 9, not one of 0 to 3`
 */
export function malformed(file: string, field: string, offset: number, reason: string): PantalaError {
  return new PantalaError('data-loss', `${file}: ${field} at offset ${offset} ${reason}`, {
    details: { file, field, offset },
  });
}
