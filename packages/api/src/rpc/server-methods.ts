import { type EventEmitter, once } from 'node:events';
import type { DescMethod } from '@bufbuild/protobuf';
import {
  type handleBidiStreamingCall,
  type handleClientStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  type UntypedHandleCall,
} from '@grpc/grpc-js';
import { AbortScope, abortable, PantalaError } from '@pantala/base';
import type { AnyInit, AnyMessage } from './definition.ts';
import { toStatus } from './errors.ts';
import type { ServerCall } from './handlers.ts';

type AnyServerCall =
  | ServerUnaryCall<AnyMessage, AnyInit>
  | ServerReadableStream<AnyMessage, AnyInit>
  | ServerWritableStream<AnyMessage, AnyInit>
  | ServerDuplexStream<AnyMessage, AnyInit>;
type RequestStream = ServerReadableStream<AnyMessage, AnyInit> | ServerDuplexStream<AnyMessage, AnyInit>;
type ResponseStream = ServerWritableStream<AnyMessage, AnyInit> | ServerDuplexStream<AnyMessage, AnyInit>;
type UnaryFunction = (request: AnyMessage, call: ServerCall) => Promise<AnyInit>;
type ServerStreamingFunction = (request: AnyMessage, call: ServerCall) => AsyncIterable<AnyInit>;
type ClientStreamingFunction = (requests: AsyncIterable<AnyMessage>, call: ServerCall) => Promise<AnyInit>;
type BidiStreamingFunction = (requests: AsyncIterable<AnyMessage>, call: ServerCall) => AsyncIterable<AnyInit>;

/** A handler in the form that grpc-js calls; without a handler, one that answers UNIMPLEMENTED. */
export function implementation(method: DescMethod, handler: unknown, stopping: AbortSignal): UntypedHandleCall {
  switch (method.methodKind) {
    case 'unary': {
      const serve = (handler ?? unimplemented(method)) as UnaryFunction;
      const handle: handleUnaryCall<AnyMessage, AnyInit> = (call, respond) =>
        void answerOnce(call, respond, stopping, (context) => serve(call.request, context));
      return handle;
    }
    case 'client_streaming': {
      const serve = (handler ?? unimplemented(method)) as ClientStreamingFunction;
      const handle: handleClientStreamingCall<AnyMessage, AnyInit> = (call, respond) =>
        void answerOnce(call, respond, stopping, (context) => serve(received(call, context.signal), context));
      return handle;
    }
    case 'server_streaming': {
      const serve = (handler ?? unimplemented(method)) as ServerStreamingFunction;
      const handle: handleServerStreamingCall<AnyMessage, AnyInit> = (call) =>
        void answerStream(call, stopping, (context) => serve(call.request, context));
      return handle;
    }
    case 'bidi_streaming': {
      const serve = (handler ?? unimplemented(method)) as BidiStreamingFunction;
      const handle: handleBidiStreamingCall<AnyMessage, AnyInit> = (call) =>
        void answerStream(call, stopping, (context) => serve(received(call, context.signal), context));
      return handle;
    }
  }
}

function unimplemented(method: DescMethod): () => never {
  return () => {
    throw new PantalaError('unimplemented', `${method.parent.typeName}/${method.name} is not served here`);
  };
}

/** The caller's presence as a signal. Disposed when the call is over. */
function scopeOf(call: AnyServerCall, stopping: AbortSignal): AbortScope {
  const scope = new AbortScope([stopping]);
  const cancelled = () => scope.abort(new PantalaError('cancelled', 'the caller is gone'));
  const events: EventEmitter = call;
  if (call.cancelled) cancelled();
  else events.once('cancelled', cancelled);
  return scope;
}

function contextOf(call: AnyServerCall, scope: AbortScope): ServerCall {
  return { signal: scope.signal, metadata: call.metadata, peer: call.getPeer() };
}

async function answerOnce(
  call: AnyServerCall,
  respond: sendUnaryData<AnyInit>,
  stopping: AbortSignal,
  serve: (context: ServerCall) => Promise<AnyInit>,
): Promise<void> {
  const scope = scopeOf(call, stopping);
  try {
    respond(null, await serve(contextOf(call, scope)));
  } catch (error) {
    respond(toStatus(error));
  } finally {
    scope.abort(new PantalaError('cancelled', 'the call is over'));
  }
}

async function answerStream(
  call: ResponseStream,
  stopping: AbortSignal,
  serve: (context: ServerCall) => AsyncIterable<AnyInit>,
): Promise<void> {
  const scope = scopeOf(call, stopping);
  // grpc-js reports here what happens to a stream that nobody writes to any more.
  call.on('error', () => {});
  try {
    // Callers may wait for the headers before anything else (tonic does, for 10 s); a first message may be long in coming.
    call.sendMetadata(new Metadata());
    for await (const message of serve(contextOf(call, scope))) {
      if (scope.signal.aborted) break;
      if (!call.write(message)) await once(call, 'drain', { signal: scope.signal });
    }
    if (scope.signal.aborted) throw PantalaError.from(scope.signal.reason);
    call.end();
  } catch (error) {
    // `emit` because `destroy(error)` would lose the status: grpc-js sends the one of an 'error' event.
    call.emit('error', toStatus(scope.signal.aborted ? scope.signal.reason : error));
  } finally {
    scope.abort(new PantalaError('cancelled', 'the call is over'));
    // Who still reads requests of a call that is over must not wait for more.
    call.once('finish', () => call.destroy());
  }
}

/** The caller's messages; ends with its half-close. Throws the signal's reason when the call ends before. */
async function* received(call: RequestStream, signal: AbortSignal): AsyncGenerator<AnyMessage, void, undefined> {
  const messages: AsyncIterator<AnyMessage> = call.iterator({ destroyOnReturn: false });
  try {
    while (true) {
      const next = await abortable(messages.next(), signal);
      if (next.done === true) return;
      yield next.value;
    }
  } catch (error) {
    throw PantalaError.from(signal.aborted ? signal.reason : error);
  }
}
