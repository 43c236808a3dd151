import { setFlagsFromString } from 'node:v8';
import { PantalaError } from '@pantala/base';

/** Characters of a pattern. The longest in known configurations have about a hundred. */
export const MAX_PATTERN_LENGTH = 1024;

// After 50,000 backtracks V8 goes on with its linear-time engine, where the pattern has neither look-around nor
// back references (RE2 and Rust's engine, for which users wrote them, know neither).
setFlagsFromString('--enable-experimental-regexp-engine-on-excessive-backtracks');

/**
 * Compiles a user's regular expression, written for Go's or Rust's engine: leading flags (`(?i)`), `(?P<name>…)`,
 * `\A` and `\z` are translated.
 *
 * @param where the option it stands in, for the message
 * @throws `invalid-argument` when it is none, is too long, or uses look-around or back references
 */
export function compilePattern(source: string, where: string): RegExp {
  if (source.length > MAX_PATTERN_LENGTH) {
    throw new PantalaError('invalid-argument', `${where}: the pattern has more than ${MAX_PATTERN_LENGTH} characters`);
  }
  if (/\(\?<?[=!]|\\[1-9]|\\k</.test(source.replaceAll('\\\\', ''))) {
    throw new PantalaError(
      'invalid-argument',
      `${where}: "${source}" uses look-around or a back reference, which can take exponential time; write it without`,
    );
  }
  const leading = /^\(\?([ims]+)\)/.exec(source);
  const body = source
    .slice(leading?.[0].length ?? 0)
    .replaceAll('(?P<', '(?<')
    .replaceAll(/(\\\\)|\\A|\\[zZ]/g, (match) => (match === '\\\\' ? match : match === '\\A' ? '^' : '$'));
  try {
    return new RegExp(body, leading?.[1] ?? '');
  } catch (error) {
    throw new PantalaError('invalid-argument', `${where}: "${source}" is no regular expression`, { cause: error });
  }
}

/** A replacement text in Go's notation (`$1`, `${1}`, `${name}`) in that of JavaScript. */
export function compileReplacement(text: string): string {
  return text.replaceAll(/\$\{(\w+)\}/g, (_, name: string) => (/^\d+$/.test(name) ? `$${name}` : `$<${name}>`));
}
