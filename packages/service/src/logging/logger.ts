import { basename } from 'node:path';
import { getCallSites } from 'node:util';
import type { LogFields, Logger } from '@pantala/base';
import { pino } from 'pino';
import { RotatingFile } from './rotating-file.ts';
import { loggable, withoutSecrets } from './secrets.ts';

/** Upstream's bounds of its log files: 1 GiB each, 20 older ones. Ours are smaller, as nothing cleans up by age. */
export const DEFAULT_LOG_BYTES = 100 * 1024 * 1024;
export const DEFAULT_LOG_FILES = 6;

export interface LoggingOptions {
  /** Adds debug lines. */
  readonly verbose: boolean;
  /** Path of the file; undefined for none. */
  readonly file: string | undefined;
  /** Writes to stderr as well. */
  readonly console: boolean;
  readonly maxBytes?: number;
  readonly maxFiles?: number;
}

/** A logger with what must be closed in the end. */
export interface ProgramLogger extends Logger, Disposable {
  /** Begins or ends debug lines. */
  setVerbose(verbose: boolean): void;
}

interface Sink {
  write(line: string): void;
}

/**
 * Writes JSON lines with upstream's keys in upstream's order: level, ts (local time), caller (folder of the package,
 * file and line of the call), msg, then the fields.
 *
 * @throws the system's error when the file cannot be made
 */
export function createLogger(options: LoggingOptions): ProgramLogger {
  const sinks: Sink[] = [];
  const file =
    options.file === undefined
      ? undefined
      : new RotatingFile({
          path: options.file,
          maxBytes: options.maxBytes ?? DEFAULT_LOG_BYTES,
          keep: options.maxFiles ?? DEFAULT_LOG_FILES,
        });
  if (file !== undefined) sinks.push(file);
  if (options.console) sinks.push(process.stderr);
  const lines = pino(
    {
      level: options.verbose ? 'debug' : 'info',
      base: null,
      timestamp: () => `,"ts":"${formatLocalTime(new Date())}"`,
      formatters: { level: (level) => ({ level }) },
    },
    {
      write: (line: string) => {
        for (const sink of sinks) sink.write(line);
      },
    },
  );

  const logger = (context: LogFields): Logger => {
    const write = (
      level: 'debug' | 'info' | 'warn' | 'error',
      message: string,
      fields: LogFields | undefined,
    ): void => {
      if (!lines.isLevelEnabled(level)) return;
      const line: Record<string, unknown> = { caller: caller(), msg: withoutSecrets(message), ...context };
      for (const [key, value] of Object.entries(fields ?? {})) line[key] = loggable(key, value);
      lines[level](line);
    };
    return {
      debug: (message, fields) => write('debug', message, fields),
      info: (message, fields) => write('info', message, fields),
      warn: (message, fields) => write('warn', message, fields),
      error: (message, fields) => write('error', message, fields),
      child: (fields) => logger({ ...context, ...(loggable('', fields) as LogFields) }),
    };
  };
  return {
    ...logger({}),
    setVerbose: (verbose) => {
      lines.level = verbose ? 'debug' : 'info';
    },
    [Symbol.dispose]: () => file?.close(),
  };
}

/** `peer/task-log.ts:42` of whoever called the logger. */
function caller(): string {
  // Frames: this function, write, the level's function, the caller.
  const site = getCallSites(4, { sourceMap: false })[3];
  if (site === undefined) return 'unknown';
  const folder = /\/packages\/([^/]+)\/|\/node_modules\/(?:@pantala\/)?([^/]+)\//.exec(site.scriptName);
  return `${folder?.[1] ?? folder?.[2] ?? 'pantala'}/${basename(site.scriptName)}:${site.lineNumber}`;
}

/** `2024-03-20 03:23:08.169`, local time. */
export function formatLocalTime(date: Date): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return `${day} ${time}.${String(date.getMilliseconds()).padStart(3, '0')}`;
}
