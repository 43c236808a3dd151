import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { ERROR_SURFACES, type ErrorCode, nodeHttp, PantalaError } from '@pantala/base';

/** No request was sent: there is no socket, or nobody takes connections on it. */
export class NobodyListens extends PantalaError {
  constructor(socket: string, cause: unknown) {
    super('unavailable', `no worker answers on ${socket}`, { cause });
  }
}

/** Error codes of a connection that was not made. */
const REFUSED: ReadonlySet<string> = new Set(['ENOENT', 'ECONNREFUSED']);

/** Asks a worker. */
export class ControlClient {
  readonly #socket: string;

  constructor(socket: string) {
    this.#socket = socket;
  }

  /**
   * @returns what it answers, parsed; undefined when that is nothing
   * @throws what the worker says; `unavailable` when none answers
   */
  async call(method: string, path: string, body?: object, signal?: AbortSignal): Promise<unknown> {
    const response = await this.#send(method, path, body, signal);
    const parsed = await parsedBody(response);
    if ((response.statusCode ?? 500) >= 400) throw errorOf(parsed);
    return parsed;
  }

  /**
   * Lines as they come, until the worker or the signal ends them.
   *
   * @throws as `call`
   */
  async *lines(method: string, path: string, body?: object, signal?: AbortSignal): AsyncGenerator<string> {
    const response = await this.#send(method, path, body, signal);
    if ((response.statusCode ?? 500) >= 400) throw errorOf(await parsedBody(response));
    yield* createInterface({ input: response });
  }

  async #send(method: string, path: string, body: object | undefined, signal?: AbortSignal): Promise<IncomingMessage> {
    const sent = nodeHttp().request({
      // No agent: nothing is kept for a next request, and an agent asks what kind of address a host is, with a
      // regular expression that takes a while to compile.
      createConnection: () => connect(this.#socket),
      method,
      path,
      ...(signal === undefined ? {} : { signal }),
      headers: body === undefined ? {} : { 'content-type': 'application/json' },
    });
    sent.end(body === undefined ? undefined : JSON.stringify(body));
    try {
      const [response] = (await once(sent, 'response')) as [IncomingMessage];
      return response;
    } catch (cause) {
      if (REFUSED.has((cause as NodeJS.ErrnoException).code ?? '')) throw new NobodyListens(this.#socket, cause);
      throw new PantalaError('unavailable', `no worker answers on ${this.#socket}`, { cause });
    }
  }
}

async function parsedBody(response: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  for await (const part of response as AsyncIterable<Buffer>) parts.push(part);
  const text = Buffer.concat(parts).toString('utf8');
  return text === '' ? undefined : JSON.parse(text);
}

function errorOf(body: unknown): PantalaError {
  if (typeof body === 'object' && body !== null && 'code' in body && 'message' in body && isErrorCode(body.code)) {
    return new PantalaError(body.code, String(body.message));
  }
  return new PantalaError('internal', `the worker answered ${JSON.stringify(body)}`);
}

function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && Object.hasOwn(ERROR_SURFACES, value);
}
