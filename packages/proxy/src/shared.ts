import type { IncomingMessage, ServerResponse } from 'node:http';
import { type ByteRange, formatContentRange, lengthOf, type RangeSpec } from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import type { Downloader, DownloadRequest, OpenTask } from '@pantala/swarm';
import { refuse } from './answers.ts';
import { BodySender, GATHERED_BODY, SMALL_BODY } from './body.ts';
import { type Directives, storedResponseHeaders, taskRequestHeaders, traceIdOf } from './headers.ts';
import type { CompiledOptions } from './options.ts';
import type { OutputFiles } from './output-files.ts';
import { firstRange, type Multipart, rangesAsked, select } from './ranges.ts';

/** A GET that goes through the swarm. */
export interface SharedRequest {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  readonly url: string;
  readonly directives: Directives;
  /** Of the rule that matched. */
  readonly filteredQueryParams: readonly string[] | undefined;
  readonly signal: AbortSignal;
}

/** Answers requests from tasks. */
export class SharedContent {
  readonly #downloader: Downloader;
  readonly #options: CompiledOptions;
  readonly #outputFiles: OutputFiles;
  /** The head of each task's answers, made once. */
  readonly #heads = new WeakMap<StoredTask, readonly string[]>();

  constructor(downloader: Downloader, options: CompiledOptions, outputFiles: OutputFiles) {
    this.#downloader = downloader;
    this.#options = options;
    this.#outputFiles = outputFiles;
  }

  /** @throws what `Downloader.open` and `OpenTask.extents` throw; `out-of-range`, `permission-denied` */
  async serve(request: SharedRequest): Promise<void> {
    const { req, res, signal } = request;
    const specs = rangesAsked(req.headers.range ?? singleValue(req, 'x-dragonfly-range'));
    const outputPath = await this.#outputFiles.admit(request.directives.outputPath);
    const range = firstRange(specs);
    const open = await this.#downloader.open(this.#downloadRequest(request, specs), {
      signal,
      whole: specs === undefined,
      ...(range === undefined ? {} : { range }),
    });
    try {
      await this.#answer(open, specs, req, res, signal);
      if (outputPath !== undefined) await this.#outputFiles.put(open, outputPath, request.directives.forceHardLink);
    } finally {
      await open[Symbol.asyncDispose]();
    }
  }

  async #answer(
    open: OpenTask,
    specs: readonly RangeSpec[] | undefined,
    req: IncomingMessage,
    res: ServerResponse,
    signal: AbortSignal,
  ): Promise<void> {
    const { contentLength } = open.task.description;
    const stored = { contentLength, headers: open.responseHeaders };
    const selection = select(specs, singleValue(req, 'if-range'), stored);
    if (selection.kind === 'unsatisfiable') {
      refuse(res, 416, 'proxy', `the content has ${contentLength} bytes`, [
        'Content-Range',
        `bytes */${contentLength}`,
        ...this.#headOf(open).slice(0, 2),
      ]);
      return;
    }
    using body = new BodySender(open, res, signal);
    const head = this.#headOf(open);
    if (selection.kind === 'parts') return await this.#sendParts(body, selection.parts, res, head);
    const { kind, range } = selection;
    const extra = kind === 'part' ? ['Content-Range', formatContentRange(range, contentLength)] : [];
    const status = kind === 'part' ? 206 : 200;
    await this.#sendOne(body, range, res, () => writeHead(res, status, head, lengthOf(range), extra));
  }

  async #sendParts(body: BodySender, parts: Multipart, res: ServerResponse, head: readonly string[]): Promise<void> {
    for (const [index, range] of parts.ranges.entries()) {
      await body.send(range, () => {
        if (index === 0) writeHead(res, 206, head, parts.length, ['Content-Type', parts.contentType]);
        return body.write(parts.head(index));
      });
    }
    res.end(parts.end);
  }

  async #sendOne(body: BodySender, range: ByteRange, res: ServerResponse, head: () => void): Promise<void> {
    const length = lengthOf(range);
    const begin = () => {
      head();
      res.flushHeaders();
    };
    if (length > GATHERED_BODY) {
      await body.send(range, begin);
      res.end();
      return;
    }
    if (!body.takeHeld(range)) await body.gather(range);
    if (length > SMALL_BODY) {
      begin();
      await body.sendHeld(range);
      res.end();
      return;
    }
    if (length === 0) {
      head();
      res.end();
      return;
    }
    const data = await body.read(range);
    head();
    // As text, of which each character is a byte, it leaves together with its head.
    res.end(data.toString('latin1'), 'latin1');
  }

  /** Task id first; then what the origin said of the content. */
  #headOf(open: OpenTask): readonly string[] {
    let head = this.#heads.get(open.task);
    if (head === undefined) {
      const { serverIp } = this.#options;
      head = [
        'X-Dragonfly-Task-ID',
        open.task.description.id,
        ...(serverIp === undefined ? [] : ['X-Dragonfly-Server-IP', serverIp]),
        'Accept-Ranges',
        'bytes',
        ...storedResponseHeaders(open.responseHeaders),
      ];
      this.#heads.set(open.task, head);
    }
    return open.hit ? [...head, 'X-Dragonfly-Task-Download-Finished', 'true'] : head;
  }

  #downloadRequest(request: SharedRequest, specs: readonly RangeSpec[] | undefined): DownloadRequest {
    const { directives, req } = request;
    const { defaults, disableBackToSource, prefetch } = this.#options;
    const wanted: Mutable<DownloadRequest> = {
      url: request.url,
      requestHeaders: taskRequestHeaders(req),
      disableBackToSource,
      prefetch: specs !== undefined && (directives.prefetch ?? prefetch),
      reader: 'local',
    };
    // Key by key: the contract tells what has no value from what is not there.
    const tag = directives.tag ?? defaults.tag;
    if (tag !== undefined) wanted.tag = tag;
    const application = directives.application ?? defaults.application;
    if (application !== undefined) wanted.application = application;
    const priority = directives.priority ?? defaults.priority;
    if (priority !== undefined) wanted.priority = priority;
    const filtered = directives.filteredQueryParams ?? request.filteredQueryParams ?? defaults.filteredQueryParams;
    if (filtered !== undefined) wanted.filteredQueryParams = filtered;
    if (directives.pieceLength !== undefined) wanted.pieceLength = directives.pieceLength;
    if (directives.contentForTaskId !== undefined) wanted.contentForTaskId = directives.contentForTaskId;
    const traceId = traceIdOf(req);
    if (traceId !== undefined) wanted.traceId = traceId;
    return wanted;
  }
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

function writeHead(
  res: ServerResponse,
  status: number,
  head: readonly string[],
  contentLength: number,
  extra: readonly string[],
): void {
  const own = extra.some((name) => name === 'Content-Type') ? withoutContentType(head) : head;
  res.writeHead(status, [...own, 'Content-Length', String(contentLength), ...extra]);
}

function withoutContentType(head: readonly string[]): string[] {
  return head.filter((_, index) => head[index - (index % 2)]?.toLowerCase() !== 'content-type');
}

function singleValue(req: IncomingMessage, name: string): string | undefined {
  const value = req.headers[name];
  return typeof value === 'string' ? value : undefined;
}
