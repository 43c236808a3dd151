import type { ServerResponse } from 'node:http';
import { ERROR_SURFACES, PantalaError } from '@pantala/base';
import { forwardedResponseHeaders } from './headers.ts';

/** Which part failed: the origin, the proxy itself, or the download behind it. */
export type ErrorType = 'backend' | 'proxy' | 'dfdaemon';

/** Of an origin's refusal: no use without its body, or written anew. */
const OF_THE_BODY = new Set([
  'content-length',
  'content-type',
  'content-encoding',
  'content-range',
  'accept-ranges',
  'date',
  'etag',
  'last-modified',
]);

/** Answers with a text, unless the answer has begun: then the connection is broken off, so that it can't look whole. */
export function refuse(
  res: ServerResponse,
  status: number,
  type: ErrorType,
  message: string,
  headers: readonly string[] = [],
): void {
  if (res.headersSent) {
    res.destroy();
    return;
  }
  const body = Buffer.from(`${message}\n`);
  const own = ['X-Dragonfly-Error-Type', type, 'Content-Type', 'text/plain; charset=utf-8'];
  try {
    res.writeHead(status, [...headers, ...own, 'Content-Length', String(body.length)]);
  } catch {
    // An origin's header that Node refuses to write must not take the explanation with it.
    res.writeHead(status, [...own, 'Content-Length', String(body.length)]);
  }
  res.end(res.req.method === 'HEAD' ? undefined : body);
}

/** An error of Pantala as an answer (`details.http` says a status of its own); an origin's refusal keeps its status and headers (`WWW-Authenticate`, `Retry-After`). */
export function refuseWith(res: ServerResponse, thrown: unknown, type: ErrorType): void {
  const error = PantalaError.from(thrown);
  const { status, http } = error.details;
  if (error.code === 'origin' && typeof status === 'number' && status >= 400 && status <= 599) {
    refuse(res, status, 'backend', error.message, refusalHeaders(error));
    return;
  }
  const surface = typeof http === 'number' ? http : ERROR_SURFACES[error.code].http;
  refuse(res, surface === 499 ? 503 : surface, error.code === 'origin' ? 'backend' : type, error.message);
}

/** The headers that an origin's error carries (`headers`, names in lower case), as far as they may go on. */
function refusalHeaders(error: PantalaError): string[] {
  if (!('headers' in error) || typeof error.headers !== 'object' || error.headers === null) return [];
  const flat = Object.entries(error.headers).flatMap(([name, value]) =>
    OF_THE_BODY.has(name.toLowerCase()) || typeof value !== 'string' ? [] : [name, value],
  );
  return forwardedResponseHeaders(flat);
}
