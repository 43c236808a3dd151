/**
 * Names, link targets and the like that are bytes, not text: one character for each byte, 0 to 255. So they compare,
 * sort and serve as keys byte by byte, whatever encoding they were meant in, and cost one byte a character in V8.
 * Turned into bytes only where they are written, into text only where a person reads them.
 */
export type ByteString = string;

export function byteString(bytes: Uint8Array): ByteString {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

export function bytesOf(value: ByteString): Buffer {
  return Buffer.from(value, 'latin1');
}

/** The bytes of `text` in UTF-8. */
export function byteStringOf(text: string): ByteString {
  return Buffer.from(text, 'utf8').toString('latin1');
}

const UTF8 = new TextDecoder('utf-8', { fatal: true });

/** For people: as UTF-8 where it is that, else byte by byte; what would disturb a terminal or a line is escaped. */
export function shown(value: ByteString): string {
  let text: string;
  try {
    text = UTF8.decode(bytesOf(value));
  } catch {
    return value.replace(/[^\x20-\x5b\x5d-\x7e]/g, escaped);
  }
  return text.replace(/[\p{Cc}\u2028\u2029\\]/gu, escaped);
}

function escaped(character: string): string {
  const code = character.charCodeAt(0);
  if (character === '\\') return '\\\\';
  if (character === '\n') return '\\n';
  return code > 0xff ? `\\u${code.toString(16)}` : `\\x${code.toString(16).padStart(2, '0')}`;
}
