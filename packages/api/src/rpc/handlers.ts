import type { Metadata } from '@grpc/grpc-js';
import type { MethodDescription, MethodsOf, Received, Sent, Service } from './definition.ts';

/** What a handler knows of its call besides the messages. */
export interface ServerCall {
  /** Aborted when the caller is gone, its deadline has passed, the call is over or the server stops. */
  readonly signal: AbortSignal;
  /** Headers of the call. */
  readonly metadata: Metadata;
  /** The caller's `ip:port`, or a text without meaning for a unix socket. */
  readonly peer: string;
}

/**
 * The function that serves a method. Whatever it throws becomes the status of the call. Streams are read and written
 * only as fast as the other side goes along; a generator is returned when its caller has gone.
 */
export type Handler<M extends MethodDescription> = M extends { methodKind: 'unary' }
  ? (request: Received<M['input']>, call: ServerCall) => Promise<Sent<M['output']>>
  : M extends { methodKind: 'server_streaming' }
    ? (request: Received<M['input']>, call: ServerCall) => AsyncIterable<Sent<M['output']>>
    : M extends { methodKind: 'client_streaming' }
      ? (requests: AsyncIterable<Received<M['input']>>, call: ServerCall) => Promise<Sent<M['output']>>
      : (requests: AsyncIterable<Received<M['input']>>, call: ServerCall) => AsyncIterable<Sent<M['output']>>;

/** Handlers of a service; a method that has none answers UNIMPLEMENTED. */
export type Handlers<S extends Service> = { readonly [K in keyof MethodsOf<S>]?: Handler<MethodsOf<S>[K]> };

/** A service with its handlers, as `createServer` takes it. Made by `serve`, which checks that they fit. */
export interface ServedService {
  readonly service: Service;
  readonly handlers: Readonly<Record<string, unknown>>;
}

export function serve<S extends Service>(service: S, handlers: Handlers<S>): ServedService {
  return { service, handlers };
}
