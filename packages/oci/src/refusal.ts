import { type ErrorCode, PantalaError } from '@pantala/base';
import type { HttpResponse } from './transport.ts';

/** Bytes of an error's body that are read for its message. */
const MAX_ERROR_BODY = 64 * 1024;

const CODES: Readonly<Record<number, ErrorCode>> = {
  400: 'invalid-argument',
  401: 'unauthenticated',
  403: 'permission-denied',
  404: 'not-found',
  405: 'unimplemented',
  413: 'invalid-argument',
  416: 'out-of-range',
  429: 'resource-exhausted',
  501: 'unimplemented',
};

const ADVICE: Readonly<Record<number, string>> = {
  401: 'log in to this registry, or check the credentials',
  403: 'these credentials may not do that',
  404: 'check the name; private repositories look like this too without credentials',
  429: 'the registry limits requests; log in or try again later',
};

/** An answer that is no success as an error: what was asked, what the registry said, what to do. Reads its body. */
export async function refusal(response: HttpResponse, what: string): Promise<PantalaError> {
  const { status, headers } = response;
  const said = await explanation(response);
  const advice = ADVICE[status];
  const parts = [`${what}: the registry answered ${status}`, said, advice].filter((part) => part);
  const code = CODES[status] ?? (status >= 500 ? 'unavailable' : 'origin');
  const retryAfter = headers['retry-after'];
  return new PantalaError(code, parts.join('; '), { details: { status, ...(retryAfter ? { retryAfter } : {}) } });
}

/** The messages of `{"errors":[{"code","message"}]}` (distribution-spec, "Error Codes"). */
async function explanation(response: HttpResponse): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of response.body) {
      chunks.push(chunk);
      length += chunk.length;
      if (length > MAX_ERROR_BODY) break;
    }
    const document: unknown = JSON.parse(Buffer.concat(chunks).toString());
    const errors = typeof document === 'object' && document !== null && 'errors' in document ? document.errors : [];
    if (!Array.isArray(errors)) return '';
    const texts = errors.slice(0, 5).map((error: { code?: unknown; message?: unknown } | null) => {
      return [error?.code, error?.message].filter((part) => typeof part === 'string').join(': ');
    });
    return texts.join(', ').slice(0, 500);
  } catch {
    return '';
  } finally {
    await response[Symbol.asyncDispose]();
  }
}

/** Reads a whole body. @throws `data-loss` when it has more than `limit` bytes */
export async function readAll(response: HttpResponse, limit: number, what: string): Promise<Buffer> {
  await using answer = response;
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of answer.body) {
    length += chunk.length;
    if (length > limit) throw new PantalaError('data-loss', `${what} has more than ${limit} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
