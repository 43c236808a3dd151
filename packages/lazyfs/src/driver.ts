import type { LazyBlob } from './contract.ts';

export type DriverName = 'fanotify' | 'fuse';

/** A blob's cache file as a driver serves it; what fills it is opened when it is first needed. */
export interface ServedBlob {
  /** 64 hex digits. */
  readonly id: string;
  /** The sparse file of decoded chunks; it is there and has its full length. */
  readonly path: string;
  /** Bytes of it. */
  readonly size: number;
  /** @throws what opening it throws; asked again at the next read */
  open(): Promise<LazyBlob>;
}

/** A blob that is served; disposing ends that, which lets readers of holes through. */
export interface AttachedBlob extends AsyncDisposable {
  /** The file that the kernel is given as `device=`. */
  readonly device: string;
}

/** How the kernel is made to wait for bytes that are not there yet. */
export interface LazyDriver extends AsyncDisposable {
  readonly name: DriverName;
  /** Serves a blob from now on. Attaching it again adds a user. */
  attach(blob: ServedBlob): Promise<AttachedBlob>;
  /** What fills a blob that is attached is open: reads of what is there need not wait for it any more. */
  opened(blob: LazyBlob): void;
  /** Everything of a file is there: the driver gets out of its way where it can. */
  complete(path: string): void;
  /**
   * Begins to answer, first what a worker before this one left unanswered. To be called once everything that was
   * served then is attached again; a second call does nothing.
   */
  start(): void;
  /** Stops taking events and waits for those in flight; what comes then waits for the next worker. */
  pause(): Promise<void>;
}
