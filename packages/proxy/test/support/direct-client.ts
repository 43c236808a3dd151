import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { PantalaError } from '@pantala/base';
import type { DirectClient, DirectRequest, DirectResponse } from '@pantala/proxy';

/** Straight to where the URL says, without any check. `ca` is trusted besides the system's. */
export function plainClient(ca?: string): DirectClient {
  return {
    async request(given: DirectRequest): Promise<DirectResponse> {
      const make = given.url.protocol === 'https:' ? httpsRequest : httpRequest;
      const chunked = given.body !== undefined && !given.headers.some((name) => /^content-length$/i.test(name));
      const req = make(given.url, {
        method: given.method,
        headers: ['Host', given.url.host, ...given.headers, ...(chunked ? ['Transfer-Encoding', 'chunked'] : [])],
        signal: given.signal,
        agent: false,
        ...(ca === undefined ? {} : { ca }),
      });
      const answered = once(req, 'response');
      if (given.body === undefined) req.end();
      else pipeline(given.body, req).catch(() => {});
      const [res] = await answered.catch((error: Error) => {
        throw new PantalaError('unavailable', `${given.url.host}: ${error.message}`, { cause: error });
      });
      return { status: res.statusCode, statusText: res.statusMessage, headers: res.rawHeaders, body: res };
    },
    async connect({ host, port, signal }) {
      const socket = connect({ host, port, signal, allowHalfOpen: true });
      await once(socket, 'connect').catch((error: Error) => {
        throw new PantalaError('unavailable', `${host}: ${error.message}`, { cause: error });
      });
      return socket;
    },
  };
}
