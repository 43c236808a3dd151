import { noMetrics, silentLogger } from '@pantala/base';
import { type ProxyOptions, type ProxyServer, startProxy } from '@pantala/proxy';
import { plainClient } from './direct-client.ts';
import { FileDownloader } from './downloader.ts';

/** A proxy on a free port with a downloader of its own; `rig.proxy.address` says where. */
export async function startRig(
  options: Partial<ProxyOptions> = {},
  given: { ca?: string } = {},
): Promise<AsyncDisposable & { proxy: ProxyServer; downloader: FileDownloader; url: string; port: number }> {
  const downloader = new FileDownloader();
  const proxy = await startProxy(
    { listen: { port: 0 }, shutdownGrace: 0, rules: [{ regex: 'blobs/sha256.*' }, { regex: '/files/' }], ...options },
    { downloader, direct: plainClient(given.ca), logger: silentLogger, metrics: noMetrics },
  );
  return {
    proxy,
    downloader,
    port: proxy.address.port,
    url: `http://127.0.0.1:${proxy.address.port}`,
    async [Symbol.asyncDispose]() {
      await proxy[Symbol.asyncDispose]();
      downloader[Symbol.dispose]();
    },
  };
}
