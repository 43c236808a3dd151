import { ERROR_SURFACES, PantalaError } from '@pantala/base';

/** Options that every command has. */
export interface CommonOptions {
  readonly json?: boolean;
}

/** Prints one JSON object as one line. */
export function printJson(value: object): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** Something worth knowing that is no result. */
export function note(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** Says on stderr what went wrong; the number is the exit status. */
export function printError(command: string, thrown: unknown, json: boolean): number {
  const error = PantalaError.from(thrown);
  const message = messageOf(error);
  if (json) process.stderr.write(`${JSON.stringify({ error: error.code, message, ...error.details })}\n`);
  else process.stderr.write(`pantala ${command}: ${message}\n`);
  // An error that nobody gave a code is a defect of ours: the stack says where.
  if (error.code === 'internal' && !json) process.stderr.write(`${error.stack ?? ''}\n`);
  return ERROR_SURFACES[error.code].exit;
}

/** What the system says of a file, with the file's name first, as other programs have it. */
function messageOf({ message, cause }: PantalaError): string {
  const { path, dest } = (cause ?? {}) as { readonly path?: unknown; readonly dest?: unknown };
  const name = dest ?? path;
  const said = /^E[A-Z0-9]+: (.+?), [a-z]+(?: '.*)?$/s.exec(message)?.[1];
  return typeof name === 'string' && said !== undefined ? `${name}: ${said}` : message;
}

/** `1 blob`, `2 blobs`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** Columns aligned by spaces. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows)
    for (const [index, cell] of row.entries()) widths[index] = Math.max(widths[index] ?? 0, cell.length);
  return rows
    .map((row) =>
      row.map((cell, index) => (index === row.length - 1 ? cell : cell.padEnd(widths[index] ?? 0))).join('  '),
    )
    .join('\n');
}
