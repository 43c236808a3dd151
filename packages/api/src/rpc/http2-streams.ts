import { subscribe } from 'node:diagnostics_channel';
import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';

/** Milliseconds; Node does not tell when trailers were sent. */
const SENT_POLL_INTERVAL = 5;

/** Paths of methods that answer with a stream. */
const streaming = new Set<string>();
let subscribed = false;

/**
 * Does for calls what Dragonfly's client relies on and grpc-js leaves out. Node's diagnostics channel is the public
 * way to the HTTP/2 streams below grpc-js.
 *
 * - A caller that still sends when its call is over is told to stop: RST_STREAM with NO_ERROR after the status
 *   (RFC 9113, section 8.1). The client keeps its side of AnnouncePeer open and takes a download for finished only
 *   then; without it, it waits for ever.
 * - The time-out of a call that answers with a stream is the caller's own matter: the client gives ten seconds and
 *   means the headers, which are sent at once, and not a stream that lasts as long as a download.
 *
 * @param paths of methods that answer with a stream, `/package.Service/Method`
 */
export function adaptStreams(paths: Iterable<string>): void {
  for (const path of paths) streaming.add(path);
  if (subscribed) return;
  subscribed = true;
  // Published before grpc-js sees the stream and its headers.
  subscribe('http2.server.stream.created', (message) => {
    const { stream, headers } = message as {
      readonly stream: ServerHttp2Stream;
      readonly headers: IncomingHttpHeaders;
    };
    if (streaming.has(headers[':path'] ?? '')) delete headers['grpc-timeout'];
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
