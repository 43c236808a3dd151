import { BLOCK_LENGTH, type BlockRun, type Geometry, lengthOf, PantalaError } from '@pantala/base';
import type { DataLease, StoredTask } from '@pantala/store';
import type { PieceSource } from './contract.ts';
import type { RangeRequestPacket } from './messages.ts';
import { encodePacket } from './packet.ts';

/** What is to be sent next for a request. */
export type UploadStep =
  | { readonly kind: 'packet'; readonly packet: Buffer }
  | { readonly kind: 'data'; readonly head: Buffer; readonly fd: number; readonly start: number; readonly end: number }
  | { readonly kind: 'wait' }
  | { readonly kind: 'end' };

/** One request for a run of blocks, answered block after block as they are held. */
export class RangeUpload implements Disposable {
  readonly request: number;
  readonly #task: StoredTask;
  readonly #run: BlockRun;
  readonly #lease: DataLease;
  /** Ends the fetch from the origin that this request began. */
  #abort: AbortController | undefined;
  #wantDigests: boolean;
  #next: number;
  #fetching = false;
  #failure: PantalaError | undefined;
  #subscription: Disposable | undefined;
  #timer: NodeJS.Timeout | undefined;

  /**
   * @param onProgress called when a waiting upload has a step again
   * @throws `not-found` for an unknown task, `invalid-argument` for blocks that are not of one piece
   */
  constructor(packet: RangeRequestPacket, source: PieceSource, fetchTimeout: number, onProgress: () => void) {
    this.request = packet.request;
    this.#task = findTask(source, packet.taskId);
    this.#run = checkRun(packet, this.#task.geometry);
    this.#wantDigests = packet.wantDigests;
    this.#next = packet.run.first;
    this.#lease = this.#task.lease();
    const fetchMissing = source.fetchMissing?.bind(source);
    if (!packet.fetchMissing || fetchMissing === undefined || this.#task.blocks.hasAll(this.#run)) return;
    this.#fetching = true;
    this.#abort = new AbortController();
    this.#timer = setTimeout(() => {
      this.#fail(new PantalaError('deadline-exceeded', `no block came from the origin in ${fetchTimeout} ms`));
      onProgress();
    }, fetchTimeout);
    this.#subscription = this.#task.subscribe((event) => {
      if (event.kind === 'void') this.#fail(new PantalaError('not-found', 'the content of the task became void'));
      else if (event.kind === 'blocks' && !this.#touches(event.run)) return;
      this.#timer?.refresh();
      onProgress();
    });
    const fetched = () => {
      this.#fetching = false;
      clearTimeout(this.#timer);
      onProgress();
    };
    fetchMissing(packet.taskId, this.#run, this.#abort.signal).then(fetched, (error: unknown) => {
      this.#failure ??= PantalaError.from(error);
      fetched();
    });
  }

  /**
   * @param frameLength bytes of a frame at most, a multiple of the block length
   * @throws why the request cannot go on
   */
  step(frameLength: number): UploadStep {
    if (this.#failure !== undefined) throw this.#failure;
    const digests = this.#digests();
    if (digests !== undefined) return { kind: 'packet', packet: digests };
    const end = this.#run.first + this.#run.count;
    if (this.#next === end) return { kind: 'end' };
    const run = this.#heldRun(end, frameLength);
    if (run.count === 0) {
      if (this.#fetching) return { kind: 'wait' };
      throw new PantalaError('not-found', `block ${this.#next} of task ${this.#task.description.id} is not held`);
    }
    this.#next += run.count;
    const range = this.#task.geometry.runRange(run);
    const head = encodePacket({ kind: 'range-data', request: this.request, run, bytes: lengthOf(range) });
    return { kind: 'data', head, fd: this.#lease.fd, start: range.start, end: range.end };
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#subscription?.[Symbol.dispose]();
    if (this.#fetching) this.#abort?.abort(new PantalaError('cancelled', 'the request is over'));
    this.#lease[Symbol.dispose]();
  }

  /** Once, and only when the piece is held whole: until then the child knows its blocks' digests otherwise. */
  #digests(): Buffer | undefined {
    if (!this.#wantDigests) return undefined;
    this.#wantDigests = false;
    const { geometry } = this.#task;
    const piece = geometry.pieceOfBlock(this.#run.first);
    const digests = this.#task.blockDigests(geometry.pieceBlocks(piece));
    if (digests === undefined) return undefined;
    return encodePacket({ kind: 'range-digests', request: this.request, piece, digests });
  }

  /** The held blocks from the next one on, as many as one frame takes. */
  #heldRun(end: number, frameLength: number): BlockRun {
    const first = this.#next;
    const limit = Math.min(end, first + frameLength / BLOCK_LENGTH);
    return { first, count: Math.min(limit, this.#task.blocks.next(false, first)) - first };
  }

  #touches(run: BlockRun): boolean {
    return run.first < this.#run.first + this.#run.count && run.first + run.count > this.#next;
  }

  #fail(error: PantalaError): void {
    this.#failure ??= error;
  }
}

function findTask(source: PieceSource, taskId: string): StoredTask {
  const task = source.find(taskId);
  if (task === undefined) throw new PantalaError('not-found', `task ${taskId} is not held here`);
  return task;
}

function checkRun(packet: RangeRequestPacket, geometry: Geometry): BlockRun {
  const { run } = packet;
  if (packet.pieceLength !== geometry.pieceLength) {
    throw new PantalaError(
      'invalid-argument',
      `pieces of task ${packet.taskId} have ${geometry.pieceLength} bytes here, not ${packet.pieceLength}`,
    );
  }
  const last = run.first + run.count - 1;
  const fits = run.count > 0 && last < geometry.blockCount;
  if (!fits || geometry.pieceOfBlock(run.first) !== geometry.pieceOfBlock(last)) {
    throw new PantalaError('invalid-argument', `blocks ${run.first} to ${last} do not lie in one piece of the task`);
  }
  return run;
}
