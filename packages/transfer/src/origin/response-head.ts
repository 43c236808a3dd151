import { PantalaError } from '@pantala/base';

/** Bytes of a response's head; real ones have 1 to 4 KiB. */
export const MAX_HEAD_LENGTH = 64 * 1024;
/** Header lines of a response. */
export const MAX_HEADERS = 256;

/** Status line and headers of an answer (RFC 9112 §4, §5). */
export interface ResponseHead {
  readonly minorVersion: number;
  readonly status: number;
  readonly reason: string;
  /** Names and values in turn, as they came. */
  readonly rawHeaders: readonly string[];
  /** Names in lower case; values of a repeated name joined by ", ". */
  readonly headers: Readonly<Record<string, string>>;
}

/** Where the body begins: the index after the empty line; -1 when it is not there yet. Lines may end with LF alone. */
export function headEnd(bytes: Buffer): number {
  for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, at + 1)) {
    if (bytes[at + 1] === 10) return at + 2;
    if (bytes[at + 1] === 13 && bytes[at + 2] === 10) return at + 3;
  }
  return -1;
}

/** @throws `origin` for anything but a head of HTTP/1.0 or 1.1 */
export function parseResponseHead(bytes: Buffer): ResponseHead {
  const lines = bytes.toString('latin1').split(/\r?\n/);
  const match = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: (.*))?$/.exec(lines[0] as string);
  if (match === null) throw bad(`its first line is ${JSON.stringify((lines[0] as string).slice(0, 60))}`);
  if (lines.length > MAX_HEADERS + 3) throw bad(`it has more than ${MAX_HEADERS} headers`);
  const rawHeaders: string[] = [];
  const headers: Record<string, string> = {};
  for (const line of lines.slice(1)) {
    if (line === '') break;
    const colon = line.indexOf(':');
    const name = line.slice(0, colon);
    // Folded lines and spaces before the colon are how requests are smuggled (RFC 9112 §5.1, §5.2).
    if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name)) throw bad(`it has a line ${JSON.stringify(line.slice(0, 60))}`);
    const value = line.slice(colon + 1).trim();
    if (/[\r\0]/.test(value)) throw bad(`header ${name} has control characters`);
    const lower = name.toLowerCase();
    rawHeaders.push(name, value);
    const before = Object.hasOwn(headers, lower) ? headers[lower] : undefined;
    Object.defineProperty(headers, lower, {
      value: before === undefined ? value : `${before}, ${value}`,
      enumerable: true,
      configurable: true,
      writable: true,
    });
  }
  const [, minor, status, reason] = match;
  return { minorVersion: Number(minor), status: Number(status), reason: reason ?? '', rawHeaders, headers };
}

/** How the end of a body is known (RFC 9112 §6.3). */
export type Framing =
  | { readonly kind: 'none' }
  | { readonly kind: 'length'; readonly length: number }
  | { readonly kind: 'chunked' }
  | { readonly kind: 'close' };

/** @throws `origin` for lengths that contradict each other and codings that are not known */
export function framingOf(head: ResponseHead, method: string): Framing {
  const { status, headers } = head;
  if (method === 'HEAD' || status === 204 || status === 304) return { kind: 'none' };
  const coding = headers['transfer-encoding'];
  if (coding !== undefined) {
    if (coding.toLowerCase() !== 'chunked')
      throw bad(`it has the transfer coding ${JSON.stringify(coding.slice(0, 60))}`);
    return { kind: 'chunked' };
  }
  const text = headers['content-length'];
  if (text === undefined) return { kind: 'close' };
  const values = new Set(text.split(',').map((value) => value.trim()));
  const [value = ''] = values;
  if (values.size !== 1 || !/^\d{1,15}$/.test(value))
    throw bad(`its Content-Length is ${JSON.stringify(text.slice(0, 60))}`);
  return { kind: 'length', length: Number(value) };
}

export function keepsAlive(head: ResponseHead): boolean {
  const connection = (head.headers.connection ?? '').toLowerCase();
  if (connection.includes('close')) return false;
  return head.minorVersion === 1 || connection.includes('keep-alive');
}

function bad(what: string): PantalaError {
  return new PantalaError('origin', `the answer is no HTTP/1.1: ${what}`);
}
