import type { Socket } from 'node:net';
import {
  formatCrc32,
  type Geometry,
  type Logger,
  lengthOf,
  monotonicNow,
  PantalaError,
  type RateLimiter,
} from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import type { PieceSource } from './contract.ts';
import { FrameLength } from './frame-length.ts';
import type { DownloadPiece, Message, RangeRequestPacket } from './messages.ts';
import type { UploadMetrics } from './metrics.ts';
import type { PieceServerOptions } from './options.ts';
import { encodePacket } from './packet.ts';
import { PacketReader } from './packet-reader.ts';
import { RangeUpload } from './range-upload.ts';
import { SocketSender } from './socket-sender.ts';
import { wireCodeOf } from './wire-error.ts';

export interface UploadConnectionDeps {
  readonly source: PieceSource;
  readonly limiter: RateLimiter;
  readonly metrics: UploadMetrics;
  readonly logger: Logger;
}

/** Requests that wait unread for more bytes than this came from no child. */
const MAX_UNREAD_LENGTH = 64 * 1024;

/** One child's connection: one request of upstream's protocol, or any number of ours. */
export class UploadConnection {
  readonly #socket: Socket;
  readonly #options: Required<PieceServerOptions>;
  readonly #deps: UploadConnectionDeps;
  readonly #reader = new PacketReader();
  readonly #abort = new AbortController();
  readonly #sender: SocketSender;
  readonly #frameLength = new FrameLength();
  #idle: NodeJS.Timeout;
  readonly #uploads = new Map<number, RangeUpload>();
  /** Requests whose next step may be taken now, in the order of their turns. */
  readonly #turns = new Set<RangeUpload>();
  /** Packets that answer at once, before the turns. */
  readonly #answers: Buffer[] = [];
  #mode: 'new' | 'upstream' | 'ranges' | 'closing' = 'new';
  #sending = false;
  /** The request whose frame is on its way: its file must stay open until it is out. */
  #current: RangeUpload | undefined;

  constructor(socket: Socket, options: Required<PieceServerOptions>, deps: UploadConnectionDeps) {
    this.#socket = socket;
    this.#options = options;
    this.#deps = deps;
    this.#sender = new SocketSender(
      socket,
      deps.limiter,
      deps.metrics.traffic,
      this.#abort.signal,
      options.sendTimeout,
    );
    this.#idle = setTimeout(() => this.#socket.destroy(), options.firstRequestTimeout);
    deps.metrics.connections.add(1);
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('end', () => {
      if (this.#mode !== 'upstream' && this.#mode !== 'closing') socket.destroy();
    });
    // 'close' follows, and is where everything is let go of.
    socket.on('error', (error) => deps.logger.debug('piece connection failed', { error: error.message }));
    socket.on('close', () => this.#close());
  }

  #receive(chunk: Buffer): void {
    if (this.#mode === 'upstream' || this.#mode === 'closing') return;
    try {
      this.#reader.push(chunk);
      for (let packet = this.#reader.next(); packet !== undefined; packet = this.#reader.next()) {
        // One request a connection: what comes after it is not looked at.
        if (this.#handle(packet.message, packet.id) === 'last') return;
      }
      if (this.#answers.length > this.#options.maxRequests || this.#reader.buffered > MAX_UNREAD_LENGTH) {
        throw new PantalaError('resource-exhausted', 'more requests than the answers can follow');
      }
    } catch (error) {
      this.#refuse(PantalaError.from(error));
    }
  }

  #handle(message: Message, id: number): 'last' | undefined {
    if (message.kind === 'close') {
      this.#socket.destroy();
    } else if (message.kind === 'download-piece' && this.#mode === 'new') {
      this.#mode = 'upstream';
      clearTimeout(this.#idle);
      void this.#answerPiece(message, id);
      return 'last';
    } else if (message.kind === 'range-request') {
      this.#mode = 'ranges';
      this.#begin(message);
    } else if (message.kind === 'cancel-range') {
      const upload = this.#uploads.get(message.request);
      if (upload === undefined) return undefined;
      this.#end(upload);
      this.#answer(encodePacket({ kind: 'range-end', request: message.request }));
    } else {
      throw new PantalaError('invalid-argument', `a child sends no ${message.kind} here`);
    }
    return undefined;
  }

  /** Bytes that are no requests: say so in the way that both protocols know, and close. */
  #refuse(error: PantalaError): void {
    if (this.#socket.destroyed) return;
    this.#deps.metrics.failures.add(1, { code: error.code });
    this.#deps.logger.debug('piece connection refused', { error: error.message });
    const refusal = new PantalaError('invalid-argument', error.message);
    if (this.#mode === 'new') {
      this.#finish(encodePacket({ kind: 'error', code: wireCodeOf(refusal), message: refusal.message }));
    } else {
      this.#socket.destroy();
    }
  }

  /**
   * Says the last word. The child closes then; what it still sends meanwhile is read and dropped, as the kernel
   * answers a close with unread bytes by a reset, which may overtake the last word.
   */
  #finish(packet?: Buffer): void {
    this.#mode = 'closing';
    if (packet === undefined) this.#socket.end();
    else this.#socket.end(packet);
    this.#socket.setTimeout(this.#options.sendTimeout, () => this.#socket.destroy());
  }

  async #answerPiece(request: DownloadPiece, id: number): Promise<void> {
    this.#deps.metrics.uploads.add(1);
    try {
      const { task, piece } = this.#findPiece(request);
      using lease = task.lease();
      const range = task.geometry.pieceRange(piece);
      const head = encodePacket(
        {
          kind: 'piece-content',
          family: 'standard',
          piece,
          offset: range.start,
          length: lengthOf(range),
          digest: formatCrc32(await task.pieceCrc32(piece)),
          parentId: '',
          trafficType: 2,
          cost: 0,
          createdAt: Math.floor(task.createdAt / 1000),
        },
        id,
      );
      await this.#sender.file(lease.fd, range.start, range.end, head);
      this.#finish();
    } catch (thrown) {
      const error = PantalaError.from(thrown);
      this.#deps.metrics.failures.add(1, { code: error.code });
      // After a part of the content only a closed connection can say that the rest does not come.
      if (this.#socket.bytesWritten > 0) this.#socket.destroy();
      else this.#finish(encodePacket({ kind: 'error', code: wireCodeOf(error), message: error.message }, id));
    } finally {
      this.#deps.metrics.uploads.add(-1);
    }
  }

  #findPiece(request: DownloadPiece): { task: StoredTask; piece: number } {
    const notFound = new PantalaError('not-found', `piece ${request.taskId}-${request.piece} not found`);
    if (request.family !== 'standard') throw notFound;
    const task = this.#deps.source.find(request.taskId);
    if (task === undefined || !holdsPiece(task, task.geometry, request.piece)) throw notFound;
    return { task, piece: request.piece };
  }

  #begin(packet: RangeRequestPacket): void {
    clearTimeout(this.#idle);
    if (this.#uploads.has(packet.request)) {
      throw new PantalaError('invalid-argument', `request ${packet.request} is already being answered`);
    }
    try {
      if (this.#uploads.size >= this.#options.maxRequests) {
        throw new PantalaError('resource-exhausted', `more than ${this.#options.maxRequests} requests at once`);
      }
      const { source } = this.#deps;
      const upload = new RangeUpload(packet, source, this.#options.fetchTimeout, () => this.#ready(packet.request));
      this.#deps.metrics.uploads.add(1);
      this.#uploads.set(packet.request, upload);
      this.#ready(packet.request);
    } catch (error) {
      this.#answerError(packet.request, PantalaError.from(error));
      this.#rest();
    }
  }

  #ready(request: number): void {
    const upload = this.#uploads.get(request);
    if (upload === undefined) return;
    this.#turns.add(upload);
    void this.#send();
  }

  #end(upload: RangeUpload): void {
    this.#uploads.delete(upload.request);
    this.#turns.delete(upload);
    this.#deps.metrics.uploads.add(-1);
    if (upload !== this.#current) upload[Symbol.dispose]();
    this.#rest();
  }

  #rest(): void {
    clearTimeout(this.#idle);
    if (this.#uploads.size > 0 || this.#socket.destroyed) return;
    this.#idle = setTimeout(() => this.#socket.destroy(), this.#options.idleTimeout);
  }

  #answer(packet: Buffer): void {
    this.#answers.push(packet);
    void this.#send();
  }

  #answerError(request: number, error: PantalaError): void {
    this.#deps.metrics.failures.add(1, { code: error.code });
    this.#answer(encodePacket({ kind: 'range-error', request, code: wireCodeOf(error), message: error.message }));
  }

  /** The one loop that writes: answers first, then one frame of each request in turn. */
  async #send(): Promise<void> {
    if (this.#sending) return;
    this.#sending = true;
    try {
      while (!this.#socket.destroyed) {
        const answer = this.#answers.shift();
        if (answer !== undefined) {
          await this.#sender.packet(answer);
          continue;
        }
        const [upload] = this.#turns;
        if (upload === undefined) break;
        this.#turns.delete(upload);
        this.#current = upload;
        try {
          await this.#sendStep(upload);
        } finally {
          this.#current = undefined;
          if (this.#uploads.get(upload.request) !== upload) upload[Symbol.dispose]();
        }
      }
    } catch (error) {
      this.#socket.destroy(PantalaError.from(error));
    } finally {
      this.#sending = false;
    }
  }

  async #sendStep(upload: RangeUpload): Promise<void> {
    let step: ReturnType<RangeUpload['step']>;
    try {
      step = upload.step(this.#frameLength.current);
    } catch (error) {
      this.#end(upload);
      this.#answerError(upload.request, PantalaError.from(error));
      return;
    }
    if (step.kind === 'wait') return;
    if (step.kind === 'end') {
      this.#end(upload);
      await this.#sender.packet(encodePacket({ kind: 'range-end', request: upload.request }));
      return;
    }
    if (step.kind === 'packet') await this.#sender.packet(step.packet);
    else {
      const begun = monotonicNow();
      await this.#sender.file(step.fd, step.start, step.end, step.head);
      this.#frameLength.sent(step.end - step.start, monotonicNow() - begun);
    }
    if (this.#uploads.get(upload.request) === upload) this.#ready(upload.request);
  }

  #close(): void {
    this.#abort.abort(new PantalaError('cancelled', 'the connection is closed'));
    for (const upload of Array.from(this.#uploads.values())) this.#end(upload);
    clearTimeout(this.#idle);
    this.#deps.metrics.connections.add(-1);
  }
}

function holdsPiece(task: StoredTask, geometry: Geometry, piece: number): boolean {
  return piece < geometry.pieceCount && task.blocks.hasAll(geometry.pieceBlocks(piece));
}
