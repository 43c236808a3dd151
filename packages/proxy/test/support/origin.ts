import { once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { formatContentRange, parseRangeHeader, resolveRange } from '@pantala/base';

export interface SeenRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly rawHeaders: readonly string[];
  readonly body: string;
}

export interface TestOrigin extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly seen: SeenRequest[];
}

/** A real HTTP server that keeps what it was asked. */
export async function startOrigin(
  answer: (req: IncomingMessage, res: ServerResponse, body: string) => void,
  tls?: { cert: string; key: string },
): Promise<TestOrigin> {
  const seen: SeenRequest[] = [];
  const handle = async (req: IncomingMessage, res: ServerResponse) => {
    let body = '';
    for await (const chunk of req) body += String(chunk);
    const { method = '', url = '', headers, rawHeaders } = req;
    seen.push({ method, url, headers, rawHeaders, body });
    answer(req, res, body);
  };
  const listener: RequestListener = (req, res) => void handle(req, res);
  const server: Server = tls === undefined ? createServer(listener) : createTlsServer(tls, listener);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    url: `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`,
    port,
    seen,
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

/** Serves `content` with ranges, as a file server does. */
export function serveContent(content: Buffer, headers: Record<string, string> = {}) {
  return (req: IncomingMessage, res: ServerResponse) => {
    const spec = parseRangeHeader(req.headers.range ?? '')?.[0];
    const range = spec && resolveRange(spec, content.length);
    const body = range === undefined ? content : content.subarray(range.start, range.end);
    res.writeHead(range === undefined ? 200 : 206, {
      ...headers,
      ...(range === undefined ? {} : { 'content-range': formatContentRange(range, content.length) }),
      'content-length': body.length,
    });
    res.end(req.method === 'HEAD' ? undefined : body);
  };
}
