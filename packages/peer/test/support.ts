import { join } from 'node:path';
import { createLogger, MetricsRegistry, type ProgramLogger } from '@pantala/service';
import { type Address, defaultPeerConfig, type Peer, type PeerConfig, startPeer } from '../src/index.ts';

const ANY = { host: '127.0.0.1', port: 0 };

export interface TestPeer extends AsyncDisposable {
  readonly peer: Peer;
  readonly metrics: MetricsRegistry;
  readonly directory: string;
  /** `http://HOST:PORT` */
  readonly proxy: string;
  readonly logFile: string;
}

export interface TestPeerOptions {
  readonly name: string;
  readonly directory: string;
  readonly schedulers?: readonly Address[];
  readonly manager?: Address;
  readonly seed?: boolean;
  readonly change?: (config: PeerConfig) => PeerConfig;
}

/** A peer in this process, on free ports of the loopback interface. */
export async function testPeer(options: TestPeerOptions): Promise<TestPeer> {
  const directory = join(options.directory, options.name);
  const config = defaultPeerConfig('today');
  const mine: PeerConfig = {
    ...config,
    host: { ...config.host, ip: '127.0.0.1', hostname: options.name },
    seed: { enabled: options.seed === true, type: 'super' },
    socketPath: join(directory, 'd.sock'),
    upload: { ...config.upload, grpc: ANY, pieces: ANY },
    store: { ...config.store, directory },
    proxy: { ...config.proxy, listen: ANY, rules: [{ regex: '.*' }] },
    health: { ...config.health, ...ANY },
    metrics: ANY,
    profiles: undefined,
    manager: options.manager,
    refreshInterval: 200,
  };
  const logFile = join(directory, 'log/core.log');
  const logger: ProgramLogger = createLogger({ verbose: false, file: logFile, console: false });
  const metrics = new MetricsRegistry({ process: false });
  const peer = await startPeer(options.change?.(mine) ?? mine, {
    logger,
    metrics,
    ...(options.schedulers === undefined ? {} : { schedulers: options.schedulers }),
  });
  return {
    peer,
    metrics,
    directory,
    proxy: `http://127.0.0.1:${peer.addresses.proxy.port}`,
    logFile,
    async [Symbol.asyncDispose]() {
      await peer[Symbol.asyncDispose]();
      logger[Symbol.dispose]();
    },
  };
}

/** The value of a metric with these labels, 0 when it was never counted. */
export async function counted(metrics: MetricsRegistry, name: string, labels = ''): Promise<number> {
  const { body } = await metrics.render();
  const line = body.split('\n').find((text) => text.startsWith(`${name}${labels} `));
  return Number(line?.split(' ').at(-1) ?? 0);
}
