import type { Descriptor, ImageSource, Platform } from '@pantala/oci';
import { readBootstrapLayer } from './bootstrap-layer.ts';
import { bootstrapLayer } from './nydus-manifest.ts';
import { platformManifest } from './platform-images.ts';

/**
 * The bootstrap of the Nydus image for a platform as it is, in memory of its own: whoever mounts it checks it.
 *
 * @param platform of an index; default: this machine's
 * @throws `invalid-argument` when it is no Nydus image; `data-loss` when the layer has not its digest; `not-found`
 */
export async function nydusBootstrap(
  source: ImageSource,
  options: { readonly platform?: Platform; readonly signal?: AbortSignal } = {},
): Promise<Buffer<ArrayBuffer>> {
  const { platform, signal } = options;
  const layer = bootstrapLayer(await platformManifest(source, platform, true, signal)) as Descriptor;
  const { bootstrap } = await readBootstrapLayer(source, layer, signal, 'bootstrap');
  return bootstrap;
}
