import { type ByteRange, formatContentRange, lengthOf, PantalaError, parseContentRange } from '@pantala/base';
import { type HttpResponse, refusal } from '@pantala/oci';

/** Bytes before the range that are read and dropped where a server ignores `Range`. */
const MAX_SKIPPED = 16 * 1024 * 1024;

/**
 * The bytes of a range out of the answer to a request for it. Consumes the response.
 *
 * @param what for messages
 * @throws `refusal` of other statuses; `origin` for an answer of something else; `unavailable` when it breaks off
 */
export async function readRangeBody(
  response: HttpResponse,
  range: ByteRange,
  what: string,
  progress?: (received: Uint8Array) => void,
): Promise<Uint8Array> {
  if (response.status !== 200 && response.status !== 206) throw await refusal(response, what);
  await using answer = response;
  let skip = bytesBefore(answer, range, what);
  const bytes = Buffer.allocUnsafeSlow(lengthOf(range));
  let filled = 0;
  for await (const chunk of answer.body) {
    const fresh = skip === 0 ? chunk : chunk.subarray(Math.min(skip, chunk.length));
    skip -= chunk.length - fresh.length;
    if (filled + fresh.length > bytes.length && answer.status === 206) {
      throw new PantalaError('origin', `${what}: more than the ${bytes.length} bytes that were asked for came`);
    }
    filled += fresh.copy(bytes, filled);
    if (fresh.length > 0) progress?.(bytes.subarray(0, filled));
    if (filled === bytes.length && answer.status === 200) break;
  }
  if (filled < bytes.length) {
    throw new PantalaError('unavailable', `${what} broke off after ${filled} of ${bytes.length} bytes`);
  }
  return bytes;
}

function bytesBefore({ status, headers }: HttpResponse, range: ByteRange, what: string): number {
  const encoding = headers['content-encoding'] ?? 'identity';
  if (encoding !== 'identity') throw new PantalaError('origin', `${what}: came encoded as ${encoding.slice(0, 50)}`);
  if (status === 200) {
    if (range.start <= MAX_SKIPPED) return range.start;
    throw new PantalaError('origin', `${what}: the server ignores ranges, so this image cannot be read lazily from it`);
  }
  const sent = parseContentRange(headers['content-range'] ?? '')?.range;
  if (sent?.start === range.start && sent.end === range.end) return 0;
  const asked = formatContentRange(range, range.end).split('/')[0];
  throw new PantalaError('origin', `${what}: asked for ${asked}, got ${headers['content-range'] ?? 'no range'}`);
}
