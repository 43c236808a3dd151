import { noMetrics, silentLogger } from '@pantala/base';
import { type ProxyOptions, type ProxyServer, startProxy } from '@pantala/proxy';
import { createOrigin } from '@pantala/transfer';
import { StoreDownloader } from './downloader.ts';

/** A proxy on a free port with a downloader of its own; `rig.proxy.address` says where. */
export async function startRig(
  options: Partial<ProxyOptions> = {},
  given: { ca?: string } = {},
): Promise<AsyncDisposable & { proxy: ProxyServer; downloader: StoreDownloader; url: string; port: number }> {
  const downloader = await StoreDownloader.start();
  const origin = createOrigin(given.ca === undefined ? {} : { trust: [{ authorities: [given.ca] }] }, {
    metrics: noMetrics,
  });
  const { direct } = origin;
  const proxy = await startProxy(
    { listen: { port: 0 }, shutdownGrace: 0, rules: [{ regex: 'blobs/sha256.*' }, { regex: '/files/' }], ...options },
    { downloader, direct, logger: silentLogger, metrics: noMetrics },
  ).catch(async (error: unknown) => {
    await downloader[Symbol.asyncDispose]();
    throw error;
  });
  return {
    proxy,
    downloader,
    port: proxy.address.port,
    url: `http://127.0.0.1:${proxy.address.port}`,
    async [Symbol.asyncDispose]() {
      await proxy[Symbol.asyncDispose]();
      await origin[Symbol.asyncDispose]();
      await downloader[Symbol.asyncDispose]();
    },
  };
}
