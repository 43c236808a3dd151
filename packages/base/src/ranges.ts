import { PantalaError } from './errors.ts';

/** Bytes `start` up to, not including, `end`. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** One element of an HTTP `Range` header before the length of the content is known (RFC 9110 §14.1.2). */
export type RangeSpec =
  | { readonly kind: 'from'; readonly first: number; readonly last: number | undefined }
  | { readonly kind: 'suffix'; readonly length: number };

/** More ranges than this in one header are refused: no reader needs them, and each costs a part of the answer. */
export const MAX_RANGES_PER_REQUEST = 64;

export function lengthOf(range: ByteRange): number {
  return range.end - range.start;
}

export function intersect(a: ByteRange, b: ByteRange): ByteRange | undefined {
  const start = Math.max(a.start, b.start);
  const end = Math.min(a.end, b.end);
  return start < end ? { start, end } : undefined;
}

/**
 * Parses the value of a `Range` header. Undefined when the unit is not bytes or the syntax is wrong: RFC 9110 has
 * the recipient ignore such a header.
 *
 * @throws `out-of-range` for more than MAX_RANGES_PER_REQUEST ranges.
 */
export function parseRangeHeader(value: string): RangeSpec[] | undefined {
  const match = /^\s*bytes\s*=\s*(.+)$/i.exec(value);
  if (match === null) return undefined;
  const parts = (match[1] as string).split(',');
  if (parts.length > MAX_RANGES_PER_REQUEST) {
    throw new PantalaError('out-of-range', `${parts.length} ranges in one request; at most ${MAX_RANGES_PER_REQUEST}`);
  }
  const specs: RangeSpec[] = [];
  for (const part of parts) {
    const spec = parseRangeSpec(part.trim());
    if (spec === undefined) return undefined;
    specs.push(spec);
  }
  return specs;
}

function parseRangeSpec(text: string): RangeSpec | undefined {
  const match = /^(\d{0,15})-(\d{0,15})$/.exec(text);
  if (match === null) return undefined;
  const [, first, last] = match as unknown as [string, string, string];
  if (first === '') return last === '' ? undefined : { kind: 'suffix', length: Number(last) };
  if (last !== '' && Number(last) < Number(first)) return undefined;
  return { kind: 'from', first: Number(first), last: last === '' ? undefined : Number(last) };
}

/** The bytes that `spec` means in content of `contentLength` bytes; undefined when it lies outside (416). */
export function resolveRange(spec: RangeSpec, contentLength: number): ByteRange | undefined {
  if (spec.kind === 'suffix') {
    if (spec.length === 0 || contentLength === 0) return undefined;
    return { start: Math.max(0, contentLength - spec.length), end: contentLength };
  }
  if (spec.first >= contentLength) return undefined;
  return { start: spec.first, end: Math.min(spec.last ?? contentLength - 1, contentLength - 1) + 1 };
}

/** `Content-Range` of a 206. */
export function formatContentRange(range: ByteRange, contentLength: number): string {
  return `bytes ${range.start}-${range.end - 1}/${contentLength}`;
}

export interface ContentRange {
  readonly range: ByteRange;
  /** Undefined when the sender wrote `*`. */
  readonly contentLength: number | undefined;
}

/** Parses `Content-Range: bytes a-b/total`; undefined when malformed. */
export function parseContentRange(value: string): ContentRange | undefined {
  const match = /^\s*bytes\s+(\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)\s*$/i.exec(value);
  if (match === null) return undefined;
  const start = Number(match[1]);
  const end = Number(match[2]) + 1;
  const contentLength = match[3] === '*' ? undefined : Number(match[3]);
  if (end <= start || (contentLength !== undefined && end > contentLength)) return undefined;
  return { range: { start, end }, contentLength };
}
