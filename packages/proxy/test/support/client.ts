import { once } from 'node:events';
import { type Agent, type IncomingHttpHeaders, request } from 'node:http';
import type { Socket } from 'node:net';

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

export interface AskOptions {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string;
  readonly agent?: Agent;
  /** A connection that is there already (an intercepted tunnel). */
  readonly socket?: Socket;
}

/** One request with node:http; `target` is sent as it is (a path, or a whole URL for a forward proxy). */
export async function ask(port: number, target: string, options: AskOptions = {}): Promise<Answer> {
  const { method = 'GET', headers = {}, body, socket } = options;
  const req = request({
    host: '127.0.0.1',
    port,
    path: target,
    method,
    headers,
    // Node asks createConnection only where there is no agent at all.
    ...(socket === undefined ? { agent: options.agent ?? false } : { createConnection: () => socket }),
  });
  req.end(body);
  const [res] = await once(req, 'response');
  const chunks: Buffer[] = [];
  for await (const chunk of res) chunks.push(chunk as Buffer);
  return { status: res.statusCode, headers: res.headers, body: Buffer.concat(chunks) };
}
