import { readFileSync } from 'node:fs';
import { isHole, type TarEntry, type WalkOptions, walkTar } from '@pantala/oci';

export interface RawHeader {
  readonly name?: string;
  readonly type?: string;
  readonly size?: number | string;
  readonly mode?: string;
  readonly uid?: string;
  readonly gid?: string;
  readonly mtime?: string;
  readonly link?: string;
  readonly magic?: string;
  readonly major?: string;
  readonly minor?: string;
  readonly prefix?: string;
  /** Anything else, by offset. */
  readonly raw?: Readonly<Record<number, string>>;
  readonly checksum?: string;
}

/** A header block byte by byte, so that tests can have what no program writes. Texts are latin1. */
export function header(fields: RawHeader): Buffer {
  const block = Buffer.alloc(512);
  const put = (offset: number, text: string) => block.write(text, offset, 'latin1');
  const size = typeof fields.size === 'string' ? fields.size : (fields.size ?? 0).toString(8).padStart(11, '0');
  put(0, fields.name ?? 'file');
  put(100, fields.mode ?? '0000644');
  put(108, fields.uid ?? '0000000');
  put(116, fields.gid ?? '0000000');
  put(124, size);
  put(136, fields.mtime ?? '00000000000');
  put(156, fields.type ?? '0');
  put(157, fields.link ?? '');
  put(257, fields.magic ?? 'ustar\x0000');
  put(329, fields.major ?? '');
  put(337, fields.minor ?? '');
  put(345, fields.prefix ?? '');
  for (const [offset, text] of Object.entries(fields.raw ?? {})) put(Number(offset), text);
  put(148, '        ');
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(148, fields.checksum ?? `${sum.toString(8).padStart(6, '0')}\0 `);
  return block;
}

/** Content in whole blocks. */
export function body(content: string | Buffer): Buffer {
  const bytes = typeof content === 'string' ? Buffer.from(content, 'latin1') : content;
  return Buffer.concat([bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);
}

export function paxHeader(records: readonly (readonly [string, string])[], type = 'x'): Buffer {
  const text = records
    .map(([name, value]) => {
      const rest = ` ${name}=${value}\n`;
      let length = rest.length + 1;
      while (String(length).length + rest.length !== length) length++;
      return `${length}${rest}`;
    })
    .join('');
  return Buffer.concat([header({ name: 'pax', type, size: text.length }), body(text)]);
}

export const END = Buffer.alloc(1024);

export async function* inPieces(bytes: Uint8Array, length = bytes.length): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
}

export interface ReadEntry extends Omit<TarEntry, 'content'> {
  readonly content: Buffer;
  /** Bytes of holes. */
  readonly holes: number;
}

/** Everything in an archive, with holes as zeros. */
export async function readTar(source: AsyncIterable<Uint8Array>, options?: WalkOptions): Promise<ReadEntry[]> {
  const entries: ReadEntry[] = [];
  for await (const entry of walkTar(source, options)) {
    const parts: Buffer[] = [];
    let holes = 0;
    if (entry.kind === 'regular') {
      for await (const piece of entry.content()) {
        if (isHole(piece)) holes += piece.length;
        parts.push(isHole(piece) ? Buffer.alloc(piece.length) : Buffer.from(piece));
      }
    }
    entries.push({ ...entry, content: Buffer.concat(parts), holes });
  }
  return entries;
}

export function readBytes(...blocks: readonly Buffer[]): Promise<ReadEntry[]> {
  return readTar(inPieces(Buffer.concat(blocks)));
}

/** Archives of the Nydus repository: every type of entry, gzip of one and of two members. */
export function fixture(name: string): Buffer {
  const folder = name.endsWith('.gz') ? 'zran' : 'tar';
  return readFileSync(new URL(`../../../rafs/test/fixtures/nydus/${folder}/${name}`, import.meta.url));
}
