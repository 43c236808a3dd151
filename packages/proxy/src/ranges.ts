import { randomBytes } from 'node:crypto';
import {
  type ByteRange,
  formatContentRange,
  lengthOf,
  parseRangeHeader,
  type RangeSpec,
  resolveRange,
} from '@pantala/base';

/** What a reader gets of content whose length is known. */
export type Selection =
  | { readonly kind: 'whole'; readonly range: ByteRange }
  | { readonly kind: 'part'; readonly range: ByteRange }
  | { readonly kind: 'parts'; readonly parts: Multipart }
  | { readonly kind: 'unsatisfiable' };

/**
 * The ranges that a request asks for, before the content is known; undefined when it asks for everything.
 *
 * @throws `out-of-range` for too many ranges
 */
export function rangesAsked(header: string | undefined): readonly RangeSpec[] | undefined {
  return header === undefined ? undefined : parseRangeHeader(header);
}

/** The one range that is known without the content's length: a hint to begin with. */
export function firstRange(specs: readonly RangeSpec[] | undefined): ByteRange | undefined {
  const spec = specs?.[0];
  if (spec?.kind !== 'from' || spec.last === undefined) return undefined;
  return { start: spec.first, end: spec.last + 1 };
}

/**
 * RFC 9110 §14: a range of content that has changed since (`If-Range`) means all of it; what lies outside is left
 * out; ranges that add up to more than the content are answered with the content.
 */
export function select(
  specs: readonly RangeSpec[] | undefined,
  ifRange: string | undefined,
  stored: { readonly contentLength: number; readonly headers: Readonly<Record<string, string>> },
): Selection {
  const { contentLength } = stored;
  const whole: Selection = { kind: 'whole', range: { start: 0, end: contentLength } };
  if (specs === undefined || !unchanged(ifRange, stored.headers)) return whole;
  const ranges = specs.map((spec) => resolveRange(spec, contentLength)).filter((range) => range !== undefined);
  const [first] = ranges;
  if (first === undefined) return { kind: 'unsatisfiable' };
  if (ranges.length === 1) return { kind: 'part', range: first };
  const total = ranges.reduce((sum, range) => sum + lengthOf(range), 0);
  if (total > contentLength) return whole;
  return { kind: 'parts', parts: new Multipart(ranges, contentLength, stored.headers['content-type']) };
}

/** `If-Range` compares strongly: a weak validator never matches. */
function unchanged(ifRange: string | undefined, headers: Readonly<Record<string, string>>): boolean {
  if (ifRange === undefined) return true;
  const wanted = ifRange.trim();
  return wanted.startsWith('"') ? wanted === headers.etag : wanted === headers['last-modified'];
}

/** A multipart/byteranges body (RFC 9110 §14.6): its framing and its exact length. */
export class Multipart {
  readonly ranges: readonly ByteRange[];
  readonly contentType: string;
  readonly length: number;
  readonly end: string;
  readonly #heads: readonly string[];

  constructor(ranges: readonly ByteRange[], contentLength: number, contentType: string | undefined) {
    // Random, so that the content can't hold it by intent.
    const boundary = randomBytes(18).toString('base64url');
    const type = contentType === undefined ? '' : `Content-Type: ${contentType}\r\n`;
    this.ranges = ranges;
    this.contentType = `multipart/byteranges; boundary=${boundary}`;
    this.end = `\r\n--${boundary}--\r\n`;
    this.#heads = ranges.map(
      (range, index) =>
        `${index === 0 ? '' : '\r\n'}--${boundary}\r\n${type}Content-Range: ${formatContentRange(range, contentLength)}\r\n\r\n`,
    );
    this.length = ranges.reduce(
      (sum, range, index) => sum + Buffer.byteLength(this.head(index), 'latin1') + lengthOf(range),
      Buffer.byteLength(this.end, 'latin1'),
    );
  }

  /** What stands before the bytes of a range. */
  head(index: number): string {
    return this.#heads[index] ?? '';
  }
}
