import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import { PantalaError } from '@pantala/base';
import type { ConfigNode } from './document.ts';
import { type Decoded, type Decoder, type Section, type SectionOptions, section, text } from './schema.ts';

/** Contents of PEM files for mutual TLS: both sides show a certificate that `ca` has signed. */
export interface TlsFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

type Shape = Section<Readonly<Record<string, Decoder<unknown>>>>['shape'];

const PATHS = { caCert: text(), cert: text(), key: text() };

/**
 * A section with upstream's three paths for mutual TLS beside its own keys. `tls` has what the files say, or is
 * undefined when none is named; some of the three alone, or files that do not fit, are mistakes.
 */
export function withTls<S extends Shape>(
  shape: S,
  options: SectionOptions = {},
): Decoder<Decoded<Section<S>> & { readonly tls: TlsFiles | undefined }> {
  const all = section({ ...shape, ...PATHS }, options);
  return {
    ...all,
    decode(node) {
      const decoded = all.decode(node) as Decoded<Section<S>> & Decoded<Section<typeof PATHS>>;
      return { ...decoded, tls: readFiles(node, decoded) };
    },
  };
}

/** A section of nothing but the three paths. */
export const tlsSection: Decoder<TlsFiles | undefined> = {
  ...section(PATHS),
  decode: (node) => readFiles(node, section(PATHS).decode(node)),
};

function readFiles(node: ConfigNode, paths: Decoded<Section<typeof PATHS>>): TlsFiles | undefined {
  const { caCert, cert, key } = paths;
  if (caCert === undefined && cert === undefined && key === undefined) return undefined;
  if (caCert === undefined || cert === undefined || key === undefined) {
    node.problem(`${node.path}: caCert, cert and key are needed together, or none of them`);
    return undefined;
  }
  try {
    const files = {
      ca: readFileSync(caCert, 'utf8'),
      cert: readFileSync(cert, 'utf8'),
      key: readFileSync(key, 'utf8'),
    };
    createSecureContext(files);
    return files;
  } catch (error) {
    node.problem(`${node.path}: its certificate, key or authority cannot be used: ${PantalaError.from(error).message}`);
    return undefined;
  }
}
