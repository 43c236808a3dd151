import type { BlockRun, ByteRange, Geometry, ReadonlyBitmap } from '@pantala/base';

/** What a task is, fixed when it is created. */
export interface TaskDescription {
  /** 64 lower-case hex digits. The only part of it that ever becomes part of a path. */
  readonly id: string;
  readonly url: string;
  readonly contentLength: number;
  readonly pieceLength: number;
  /** Digest of the whole content where it is known (`sha256:<hex>`). */
  readonly digest?: string;
  /** The origin's response headers worth keeping, names in lower case. */
  readonly responseHeaders: Readonly<Record<string, string>>;
  readonly tag?: string;
  readonly application?: string;
}

/**
 * How far the bytes of a write can be trusted.
 * - `checked`: each block matched a digest from authority, or came from our own fetch from the origin.
 * - `provisional`: kept on disk but shown to nobody, and gone after a restart, until `promote` makes it checked.
 */
export type Trust = 'checked' | 'provisional';

export type StoreEvent =
  | { readonly kind: 'blocks'; readonly run: BlockRun }
  | { readonly kind: 'complete' }
  /** Everything the task held is void: its digest was wrong, or it was removed. */
  | { readonly kind: 'void' };

/** A pin on a task's data file: eviction leaves it alone, and `fd` stays open, until it is disposed. */
export interface DataLease extends Disposable {
  readonly fd: number;
}

/** One task's content on disk. Every reading is of checked blocks only. */
export interface StoredTask {
  readonly description: TaskDescription;
  readonly geometry: Geometry;
  /** Checked blocks. */
  readonly blocks: ReadonlyBitmap;
  /** Blocks written but not yet to be trusted. */
  readonly provisional: ReadonlyBitmap;
  readonly complete: boolean;
  /** Milliseconds since the epoch. */
  readonly createdAt: number;
  readonly completedAt: number | undefined;

  has(range: ByteRange): boolean;
  /** End of the checked bytes that begin at `offset` without a gap; `offset` itself when there are none. */
  availableFrom(offset: number): number;

  /**
   * Stores whole blocks of one piece and their digests. Resolves when readers may have them: data in the page
   * cache, journal record appended. Blocks that are held already are skipped.
   *
   * @param data the bytes of the run, block after block; not kept after the promise settles
   * @param digests 32 bytes for each block
   * @throws `disk-full`; `cancelled` once the task is void
   */
  write(run: BlockRun, data: Buffer, digests: Buffer, trust: Trust): Promise<void>;
  /**
   * The whole has the digest of the description, or none is known: makes every provisional block checked. A task with
   * a digest that had its last block, but not this, has it hidden after a restart until the store has compared them.
   */
  promote(): Promise<void>;
  /** Whoever compared the whole with its digest has given up: the store does it, and hides the last block until then. */
  recheck(): void;
  /** Drops every provisional block. */
  discardProvisional(): void;

  /** Digests of the blocks of a run, 32 bytes each; undefined unless all of them are held (checked). */
  blockDigests(run: BlockRun): Buffer | undefined;
  /** Digest of a whole piece; undefined unless all of its blocks are held. */
  pieceDigest(piece: number): Buffer | undefined;
  /** CRC-32 of a whole piece, read from disk the first time it is asked for. */
  pieceCrc32(piece: number): Promise<number>;

  /**
   * Marks the task as used.
   *
   * @throws `failed-precondition` when part of the range is not held; `data-loss` when it becomes void meanwhile
   */
  read(range: ByteRange): Promise<Buffer>;
  /** For sendfile and large reads; the caller reads only what `availableFrom` or `has` allow. */
  lease(): DataLease;
  /** Copies the complete content to `path` by reflink or in the kernel; refuses an existing file unless told. */
  copyTo(path: string, options: { readonly overwrite: boolean; readonly signal?: AbortSignal }): Promise<void>;
  /** Hard link at `path`, for callers that asked for it: read-only, and dropped by the store when it changes. */
  linkTo(path: string): Promise<void>;

  /** Called synchronously after each change. */
  subscribe(listener: (event: StoreEvent) => void): Disposable;
}

/** All tasks of one node. */
export interface TaskStore extends AsyncDisposable {
  get(id: string): StoredTask | undefined;
  /** The task with this id, created when it is missing. @throws `failed-precondition` when it differs in length. */
  create(description: TaskDescription): Promise<StoredTask>;
  /** Forgets a task; its file lives on until the last lease is gone. */
  remove(id: string): Promise<void>;
  /** Forgets what a task holds but keeps it known (its content was proved wrong). */
  void(id: string): Promise<void>;
  tasks(): Iterable<StoredTask>;
  readonly usage: { readonly tasks: number; readonly bytes: number };
}
