import type { MountRequest } from './mount-request.ts';

/** An image in a registry as a command names it. */
export interface NamedImage {
  readonly reference: string;
  /** As `linux/arm64`; default: the image's only one, or this machine's. */
  readonly platform?: string;
  /** Default false, each. */
  readonly plainHttp?: boolean;
  readonly insecure?: boolean;
  /** Docker configuration file of the caller, with the credentials for the registry. */
  readonly credentials: string;
  /** Unix socket of a peer that is asked for blobs; false: none. Default: the one that is there. */
  readonly peerSocket?: string | false;
}

/** Where the bytes of a mount are, as a command names it; who mounts finds the rest. */
export type OrderedSource =
  | Pick<MountRequest, 'bootstrap' | 'sources'>
  /** A file with nydusd's configuration, and what stands before the credentials in it. */
  | { readonly bootstrap: string; readonly config: { readonly path: string; readonly pullAuth?: string } }
  | { readonly image: NamedImage };

/**
 * What a command asks for. It names image and configuration and does not read them: what that takes is loaded in a
 * worker already, and takes a command longer than the mount.
 */
export type MountOrder = OrderedSource & Omit<MountRequest, 'bootstrap' | 'sources'>;
