import { subscribe } from 'node:diagnostics_channel';
import type { ServerHttp2Stream } from 'node:http2';

/**
 * Tells callers that still send when their call is over to stop: RST_STREAM with NO_ERROR after the status (RFC 9113,
 * section 8.1), as other gRPC servers do and grpc-js does not. Dragonfly's client keeps its side of AnnouncePeer open
 * and takes a download for finished only then; without it, it waits for ever.
 *
 * Node's diagnostics channel is the public way to the HTTP/2 streams below grpc-js; it reaches every HTTP/2 server of
 * the process, for which the same holds.
 */
export function releaseUnreadRequests(): void {
  if (released) return;
  released = true;
  subscribe('http2.server.stream.created', (message) => {
    const { stream } = message as { readonly stream: ServerHttp2Stream };
    // Asked for after the last message; grpc-js has handed over the status when its own listener has run.
    stream.once('wantTrailers', () => setImmediate(resetWhenSent, stream));
  });
}

/** A reset that overtakes the status would take its place: it waits until the status has left, behind what is queued. */
function resetWhenSent(stream: ServerHttp2Stream): void {
  if (stream.closed || stream.destroyed || stream.readableEnded) return;
  if (stream.state.localClose === 1) stream.close();
  else setTimeout(resetWhenSent, SENT_POLL_INTERVAL, stream).unref();
}

/** Milliseconds; Node does not tell when trailers were sent. */
const SENT_POLL_INTERVAL = 5;
let released = false;
