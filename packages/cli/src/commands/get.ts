import { rm, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { commonV2 } from '@pantala/api';
import { PantalaError, parseContentDigest } from '@pantala/base';
import { parseDuration, parseSize } from '@pantala/service';
import { type DownloadCount, type DownloadOrder, download } from '../download/download.ts';
import { digestOfFile } from '../download/file-digest.ts';
import { ProgressBar } from '../download/progress-bar.ts';
import { type CommonOptions, printJson } from '../output.ts';

interface GetOptions extends CommonOptions {
  readonly output: string;
  readonly endpoint: string;
  readonly digest?: string;
  readonly header: readonly string[];
  readonly tag?: string;
  readonly application?: string;
  readonly priority: number;
  readonly filteredQueryParam: readonly string[];
  readonly pieceLength?: string;
  readonly contentForCalculatingTaskId?: string;
  readonly disableBackToSource?: boolean;
  readonly transferFromDfdaemon?: boolean;
  readonly forceHardLink?: boolean;
  readonly overwrite?: boolean;
  readonly timeout: string;
  readonly progress: boolean;
}

export async function get(url: string, options: GetOptions): Promise<number> {
  const order = await orderOf(url, options);
  const bar = options.progress && process.stderr.isTTY ? new ProgressBar(process.stderr, order.url) : undefined;
  const stop = new AbortController();
  const interrupt = (): void => stop.abort(new PantalaError('cancelled', 'interrupted; nothing is left at the output'));
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
  const began = performance.now();
  let count: DownloadCount;
  try {
    count = await download(order, { signal: stop.signal, progress: (now) => bar?.show(now) });
  } finally {
    bar?.end();
    process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
  }
  const seconds = (performance.now() - began) / 1000;
  const digest = await checkedDigest(order.output, options);
  if (options.json === true) {
    const { bytes, originBytes, peerBytes, localBytes } = count;
    printJson({ bytes, seconds: Number(seconds.toFixed(3)), originBytes, peerBytes, localBytes, digest });
  }
  return 0;
}

async function orderOf(given: string, options: GetOptions): Promise<DownloadOrder> {
  const url = URL.parse(given);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new PantalaError('invalid-argument', `"${given}" cannot be downloaded: URLs of http and https can`);
  }
  const output = resolve(options.output);
  const there = await stat(output).catch(() => undefined);
  if (there?.isDirectory() === true) {
    throw new PantalaError('invalid-argument', `${output} is a directory; name the file in it`);
  }
  if (there !== undefined && options.overwrite !== true) {
    throw new PantalaError('already-exists', `${output} exists already; say --overwrite to replace it`);
  }
  if (options.digest !== undefined) parseContentDigest(options.digest);
  const timeout = parseDuration(options.timeout);
  if (timeout === undefined || timeout <= 0) {
    throw new PantalaError('invalid-argument', `--timeout ${options.timeout} is no duration such as 2h or 30s`);
  }
  const pieceLength = options.pieceLength === undefined ? undefined : parseSize(options.pieceLength);
  if (options.pieceLength !== undefined && pieceLength === undefined) {
    throw new PantalaError('invalid-argument', `--piece-length ${options.pieceLength} is no size such as 4MiB`);
  }
  const { priority } = options;
  if (!isPriority(priority)) throw new PantalaError('invalid-argument', '--priority is from 0 to 6');
  return {
    url: given,
    output,
    endpoint: options.endpoint,
    digest: options.digest,
    headers: Object.fromEntries(options.header.map(parseHeader)),
    tag: options.tag,
    application: options.application,
    priority,
    filteredQueryParams: options.filteredQueryParam,
    pieceLength,
    contentForTaskId: options.contentForCalculatingTaskId,
    disableBackToSource: options.disableBackToSource ?? false,
    transfer: options.transferFromDfdaemon ?? false,
    forceHardLink: options.forceHardLink ?? false,
    overwrite: options.overwrite ?? false,
    timeout,
  };
}

function isPriority(level: number): level is commonV2.Priority {
  return Number.isInteger(level) && level >= 0 && level <= 6;
}

function parseHeader(text: string): [string, string] {
  const colon = text.indexOf(':');
  const name = text.slice(0, colon).trim();
  if (colon < 1 || !/^[\w!#$%&'*+.^`|~-]+$/.test(name)) {
    throw new PantalaError('invalid-argument', `--header "${name}" is not written as "Name: value"`);
  }
  return [name.toLowerCase(), text.slice(colon + 1).trim()];
}

/** The digest of what was written. A wrong one takes the file away: nobody is to use it. */
async function checkedDigest(output: string, options: GetOptions): Promise<string | undefined> {
  if (options.digest === undefined && options.json !== true) return undefined;
  const expected = options.digest === undefined ? undefined : parseContentDigest(options.digest);
  const algorithm = expected?.algorithm ?? 'sha256';
  const found = await digestOfFile(output, algorithm);
  if (expected !== undefined && found !== expected.hex) {
    await rm(output, { force: true });
    throw new PantalaError(
      'data-loss',
      `what was downloaded has ${algorithm}:${found}, not ${options.digest}; it was removed. The URL's content has changed, or the digest is of something else`,
    );
  }
  return `${algorithm}:${found}`;
}
