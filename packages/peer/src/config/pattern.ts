import { PantalaError } from '@pantala/base';
import { compilePattern } from '@pantala/proxy';
import type { Decoder } from '@pantala/service';

/** A regular expression as the proxy takes it, kept as text: options are plain data. */
export function pattern(): Decoder<string | undefined>;
export function pattern(fallback: string): Decoder<string>;
export function pattern(fallback?: string): Decoder<string | undefined> {
  return {
    decode(node) {
      if (node.text === undefined) return fallback;
      try {
        compilePattern(node.text, node.path);
        return node.text;
      } catch (error) {
        node.problem(PantalaError.from(error).message);
        return fallback;
      }
    },
  };
}
