import { stat } from 'node:fs/promises';
import { PantalaError } from '@pantala/base';
import { locateImage } from '@pantala/oci';

/** What a registry answers, or does not, when a name is not one of its images. */
const UNKNOWN = new Set(['not-found', 'unavailable', 'unauthenticated', 'permission-denied', 'deadline-exceeded']);

/**
 * An error of a source that was taken for an image of Docker Hub because it is no file: a wrong path says the same, so
 * the message says that, too.
 */
export async function misnamed(name: string, thrown: unknown): Promise<PantalaError> {
  const error = PantalaError.from(thrown);
  if (!UNKNOWN.has(error.code)) return error;
  const location = await locateImage(name).catch(() => undefined);
  const [first = ''] = name.split('/');
  const isHost = (/[.:]/.test(first) || first === 'localhost') && name.includes('/');
  if (location?.kind !== 'registry' || isHost || name.startsWith('docker:')) return error;
  if ((await stat(name).catch(() => undefined)) !== undefined) return error;
  const fact = `"${name}" was looked for in a registry, for there is no such file or folder`;
  return new PantalaError(error.code, `${error.message}; ${fact}`, { cause: thrown, details: error.details });
}

/** Errors that do not say where they were met. */
const OF_CONTENT = new Set(['data-loss', 'invalid-argument', 'unimplemented']);

/** An error of what is in a file, with the file's name. */
export function inFile(path: string, thrown: unknown): PantalaError {
  const error = PantalaError.from(thrown);
  const { code, details, message } = error;
  return OF_CONTENT.has(code) ? new PantalaError(code, `${path}: ${message}`, { cause: thrown, details }) : error;
}
