import { noMetrics, PantalaError } from '@pantala/base';
import { createOrigin, type OriginAccess, type OriginOptions } from '../../src/index.ts';
import { contentOf, numbered } from './origin-conformance.ts';
import { response, type ScriptedRequest } from './scripted-server.ts';

export const CONTENT = numbered(200_000);

export function open(options: OriginOptions = {}): OriginAccess {
  return createOrigin(options, { metrics: noMetrics });
}

/** A well-behaved answer to a request for CONTENT. */
export function serve(request: ScriptedRequest, content = CONTENT): Buffer {
  const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
  if (match === null) return response(200, {}, content);
  const [start, end] = [Number(match[1]), Number(match[2]) + 1];
  if (start >= content.length) return response(416, { 'Content-Range': `bytes */${content.length}` });
  const part = content.subarray(start, end);
  return response(206, { 'Content-Range': `bytes ${start}-${start + part.length - 1}/${content.length}` }, part);
}

export const RANGE = { start: 100_000, end: 150_000 };
export const PART = CONTENT.subarray(RANGE.start, RANGE.end);

export async function fetched(
  origin: OriginAccess,
  url: string,
  range?: { start: number; end: number },
): Promise<Buffer> {
  await using body = await origin.fetch({ url, headers: {}, ...(range === undefined ? {} : { range }) });
  return await contentOf(body);
}

export async function failure(work: Promise<unknown>): Promise<PantalaError> {
  const result = await work.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (result instanceof PantalaError) return result;
  throw new Error('it did not fail with a PantalaError', { cause: result });
}
