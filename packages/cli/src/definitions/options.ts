import { InvalidArgumentError } from 'commander';
import { defaultEndpoint } from '../endpoint.ts';

/** Wraps what a command does: its errors become a message with the command's name, its result the exit status. */
export type ActionWrapper = <A extends unknown[]>(
  name: string,
  body: (...args: A) => Promise<number>,
) => (...given: A) => Promise<void>;

export const endpoint = ['-e, --endpoint <path>', "the peer's unix socket", defaultEndpoint()] as const;

export function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  $ ${line}`).join('\n')}`;
}

/** An option that may be repeated. */
export function collect(value: string, earlier: readonly string[]): string[] {
  return [...earlier, value];
}

export function whole(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new InvalidArgumentError('A whole number is expected.');
  return Number(text);
}
