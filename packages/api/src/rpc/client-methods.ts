import type { DescMethod } from '@bufbuild/protobuf';
import {
  type Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  type ClientWritableStream,
  type CallOptions as GrpcCallOptions,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import { PantalaError } from '@pantala/base';
import { type AnyInit, type AnyMessage, definitionOf } from './definition.ts';
import { fromServiceError } from './errors.ts';

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds that the whole call may take. The client's own deadline holds for unary calls without one. */
  readonly deadline?: number;
  /** Additional headers; names in lower case. */
  readonly metadata?: Readonly<Record<string, string>>;
}

type Requests = AsyncIterable<AnyInit>;
type Cancellable = { cancel(): void };
type ResponseStream = ClientReadableStream<AnyMessage> | ClientDuplexStream<AnyInit, AnyMessage>;
type RequestStream = ClientWritableStream<AnyInit> | ClientDuplexStream<AnyInit, AnyMessage>;

/** The function that calls a method, of the kind that `ClientMethod` says. */
export function invocation(client: Client, method: DescMethod, deadline: number | undefined): unknown {
  const { path, requestSerialize, responseDeserialize } = definitionOf(method);
  const serialize = requestSerialize;
  const deserialize = responseDeserialize as (bytes: Buffer) => AnyMessage;
  switch (method.methodKind) {
    case 'unary':
      return (request: AnyInit, options: CallOptions = {}) =>
        once(options, (done) =>
          client.makeUnaryRequest(
            path,
            serialize,
            deserialize,
            request,
            metadataOf(options),
            limits(options, deadline),
            done,
          ),
        );
    case 'client_streaming':
      return (requests: Requests, options: CallOptions = {}) =>
        once(options, (done) => {
          const call = client.makeClientStreamRequest(
            path,
            serialize,
            deserialize,
            metadataOf(options),
            limits(options),
            done,
          );
          void send(call, requests);
          return call;
        });
    case 'server_streaming':
      return (request: AnyInit, options: CallOptions = {}) =>
        responses(options, () =>
          client.makeServerStreamRequest(path, serialize, deserialize, request, metadataOf(options), limits(options)),
        );
    case 'bidi_streaming':
      return (requests: Requests, options: CallOptions = {}) =>
        responses(options, () => {
          const call = client.makeBidiStreamRequest(path, serialize, deserialize, metadataOf(options), limits(options));
          void send(call, requests);
          return call;
        });
  }
}

function metadataOf({ metadata = {} }: CallOptions): Metadata {
  const headers = new Metadata();
  for (const [name, value] of Object.entries(metadata)) headers.set(name, value);
  return headers;
}

function limits(options: CallOptions, fallback?: number): GrpcCallOptions {
  const deadline = options.deadline ?? fallback;
  return deadline === undefined || deadline === Number.POSITIVE_INFINITY ? {} : { deadline: Date.now() + deadline };
}

type Done = (error: ServiceError | null, response?: AnyMessage) => void;

function once({ signal }: CallOptions, start: (done: Done) => Cancellable): Promise<AnyMessage> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(PantalaError.from(signal.reason));
      return;
    }
    const cancel = () => call.cancel();
    const call = start((error, response) => {
      signal?.removeEventListener('abort', cancel);
      if (error === null && response !== undefined) resolve(response);
      else reject(failure(error, signal));
    });
    signal?.addEventListener('abort', cancel, { once: true });
  });
}

/** Starts the call at once; cancels it when the reader stops before the end. */
function responses({ signal }: CallOptions, start: () => ResponseStream): AsyncIterable<AnyMessage> {
  if (signal?.aborted === true) throw PantalaError.from(signal.reason);
  const call = start();
  // The error is kept by the stream for its reader; without a listener, one that comes early would end the process.
  call.on('error', () => {});
  const cancel = () => call.cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  call.once('close', () => signal?.removeEventListener('abort', cancel));
  return read(call, signal);
}

async function* read(
  call: ResponseStream,
  signal: AbortSignal | undefined,
): AsyncGenerator<AnyMessage, void, undefined> {
  let status: ServiceError | undefined;
  call.on('error', (error: ServiceError) => {
    status = error;
  });
  try {
    for await (const message of call.iterator({ destroyOnReturn: false })) yield message;
  } catch (error) {
    throw failure(status ?? error, signal);
  } finally {
    call.cancel();
    call.destroy();
  }
}

/** Writes the requests as fast as the server takes them, then half-closes. Their failure cancels the call. */
async function send(call: RequestStream, requests: Requests): Promise<void> {
  let over = false;
  let wake = () => {};
  const end = () => {
    over = true;
    wake();
  };
  for (const event of ['close', 'error', 'status']) call.once(event, end);
  // One waiting at a time, so that a stream that lives for days keeps nothing of those before.
  const orOver = <T>(waiting: Promise<T>): Promise<T | undefined> =>
    new Promise((resolve, reject) => {
      wake = () => resolve(undefined);
      if (over) wake();
      else waiting.then(resolve, reject);
    });
  const iterator = requests[Symbol.asyncIterator]();
  try {
    while (true) {
      const next = await orOver(iterator.next());
      if (next === undefined || next.done === true) break;
      if (call.write(next.value)) continue;
      await orOver(new Promise<void>((resolve) => call.once('drain', resolve)));
    }
    if (!over) call.end();
  } catch {
    call.cancel();
  } finally {
    // A source that waits for its next message cannot be asked to return before that one comes.
    if (over) iterator.return?.()?.catch(() => {});
  }
}

function failure(error: unknown, signal: AbortSignal | undefined): PantalaError {
  if (signal?.aborted === true) return PantalaError.from(signal.reason);
  return isServiceError(error) ? fromServiceError(error) : PantalaError.from(error);
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && typeof error.code === 'number' && 'metadata' in error;
}
