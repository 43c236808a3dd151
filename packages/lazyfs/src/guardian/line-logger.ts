import type { LogFields, Logger } from '@pantala/base';

/** Lines of JSON on stderr: a guardian lives on little memory, which the logger of the other programs alone would take. */
export function lineLogger(constant: LogFields = {}): Logger {
  const write =
    (level: string) =>
    (msg: string, fields: LogFields = {}): void => {
      const line = { level, ts: new Date().toISOString(), msg, ...constant, ...fields };
      process.stderr.write(
        `${JSON.stringify(line, (_, value: unknown) => (value instanceof Error ? value.message : value))}\n`,
      );
    };
  return {
    debug() {},
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    child: (fields) => lineLogger({ ...constant, ...fields }),
  };
}
