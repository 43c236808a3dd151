import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';

export interface ScriptedRequest {
  readonly method: string;
  readonly path: string;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  /** How many requests came before it. */
  readonly index: number;
}

export interface ScriptedServer extends AsyncDisposable {
  readonly port: number;
  readonly url: string;
  readonly requests: ScriptedRequest[];
  /** Connections that were made. */
  connections: number;
}

/** A server on bare sockets that answers each request (with a Content-Length body or none) as the test says. */
export async function scriptedServer(
  answer: (request: ScriptedRequest, socket: Socket) => string | Buffer | undefined,
): Promise<ScriptedServer> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    scripted.connections++;
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket)).on('error', () => socket.destroy());
    let held = Buffer.alloc(0);
    socket.on('data', (part: Buffer) => {
      held = Buffer.concat([held, part]);
      for (;;) {
        const end = held.indexOf('\r\n\r\n');
        if (end < 0) return;
        const [first = '', ...lines] = held.toString('latin1', 0, end).split('\r\n');
        const headers = Object.fromEntries(
          lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 2)]),
        );
        const stop = end + 4 + Number(headers['content-length'] ?? 0);
        if (held.length < stop) return;
        const [method = '', path = ''] = first.split(' ');
        const body = Buffer.from(held.subarray(end + 4, stop));
        const request = { method, path, headers, body, index: scripted.requests.length };
        held = held.subarray(stop);
        scripted.requests.push(request);
        const text = answer(request, socket);
        if (text !== undefined) socket.write(text);
      }
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const scripted: ScriptedServer = {
    port,
    url: `http://127.0.0.1:${port}`,
    requests: [],
    connections: 0,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
  return scripted;
}

/** A response with a Content-Length. */
export function response(status: number, headers: Record<string, string | number>, body: string | Buffer = ''): Buffer {
  const bytes = Buffer.from(body);
  const all: Record<string, string | number> = { 'Content-Length': bytes.length, ...headers };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.concat([Buffer.from(`HTTP/1.1 ${status} Status\r\n${lines.join('')}\r\n`), bytes]);
}
