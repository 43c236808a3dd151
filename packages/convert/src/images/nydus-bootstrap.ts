import type { Descriptor, ImageManifest, ImageSource, Platform } from '@pantala/oci';
import { readBootstrapLayer } from './bootstrap-layer.ts';
import { ANNOTATIONS, bootstrapLayer } from './nydus-manifest.ts';
import { platformManifest } from './platform-images.ts';

/**
 * The bootstrap of the Nydus image for a platform as it is, in memory of its own: whoever mounts it checks it.
 *
 * @param options.platform of an index; default: this machine's
 * @param options.onBlobs told, before the bootstrap is fetched, which blobs the manifest names: 64 hex digits each
 * @throws `invalid-argument` when it is no Nydus image; `data-loss` when the layer has not its digest; `not-found`
 */
export async function nydusBootstrap(
  source: ImageSource,
  options: {
    readonly platform?: Platform;
    readonly signal?: AbortSignal;
    readonly onBlobs?: (ids: readonly string[]) => void;
  } = {},
): Promise<Buffer<ArrayBuffer>> {
  const { platform, signal, onBlobs } = options;
  const manifest = await platformManifest(source, platform, true, signal);
  onBlobs?.(blobsOf(manifest));
  const layer = bootstrapLayer(manifest) as Descriptor;
  const { bootstrap } = await readBootstrapLayer(source, layer, signal, 'bootstrap');
  return bootstrap;
}

/** The layers before the bootstrap; of those that stand beside an unmodified layer, that one. */
function blobsOf({ layers }: ImageManifest): string[] {
  return layers
    .slice(0, -1)
    .map(({ digest, annotations }) => annotations.get(ANNOTATIONS.reference) ?? digest)
    .flatMap((digest) => /^sha256:([0-9a-f]{64})$/.exec(digest)?.slice(1) ?? []);
}
