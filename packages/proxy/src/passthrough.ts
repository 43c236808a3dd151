import type { IncomingMessage, ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';
import type { DirectClient } from './direct.ts';
import { forwardedRequestHeaders, forwardedResponseHeaders } from './headers.ts';

/** Milliseconds in which a client neither sends of its body nor takes of the answer. */
const STALL_LIMIT = 5 * 60_000;

/**
 * Passes a request to its origin and the answer back, both as they are.
 *
 * @throws what the client throws when the origin can't be asked; nothing has been answered then
 */
export async function passThrough(
  client: DirectClient,
  url: URL,
  req: IncomingMessage,
  res: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  // Node closes the connection then, and takes the limit away with the next request.
  req.socket.setTimeout(STALL_LIMIT);
  const answer = await client.request({
    method: req.method ?? 'GET',
    url,
    headers: forwardedRequestHeaders(req),
    ...(hasBody(req) ? { body: req } : {}),
    signal,
  });
  try {
    const headers = forwardedResponseHeaders(answer.headers);
    if (answer.status >= 400) headers.push('X-Dragonfly-Error-Type', 'backend');
    // Its status text may hold characters that Node's server refuses to write; the standard one says as much.
    res.writeHead(answer.status, headers);
    await pipeline(answer.body, res, { signal });
  } finally {
    answer.body.destroy();
  }
}

/** Whether a request has a body (RFC 9112 §6). */
export function hasBody(req: IncomingMessage): boolean {
  const length = req.headers['content-length'];
  return req.headers['transfer-encoding'] !== undefined || (length !== undefined && length !== '0');
}
