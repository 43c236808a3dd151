import { existsSync } from 'node:fs';
import { styleText } from 'node:util';
import { ERROR_SURFACES } from '@pantala/base';
import { defaultPeerConfig, loadPeerConfig, readDynconfig } from '@pantala/peer';
import { type Check, good, remark } from '../doctor/check.ts';
import { checkPort, checkRuntime, checkStore } from '../doctor/machine.ts';
import { checkMounts } from '../doctor/mounts.ts';
import { checkContainerd, checkPeer, checkServer, isServing } from '../doctor/neighbours.ts';
import { print, printJson } from '../output.ts';
import { placesFor, type WorkerOptions } from './mount/worker.ts';

interface DoctorOptions extends WorkerOptions {
  readonly config?: string;
  readonly containerdConfig: string;
}

const PEER_CONFIG = '/etc/dragonfly/dfdaemon.yaml';
const DYNCONFIG = '/etc/dragonfly/dynconfig.yaml';

/** Exit status 0 when nothing keeps a peer from working, else that of a machine that is not set up. */
export async function doctor(options: DoctorOptions): Promise<number> {
  const path = options.config ?? (existsSync(PEER_CONFIG) ? PEER_CONFIG : undefined);
  const { config, warnings } =
    path === undefined ? { config: defaultPeerConfig('today'), warnings: [] } : loadPeerConfig(path);
  const dynconfig = config.manager === undefined && existsSync(DYNCONFIG) ? readDynconfig(DYNCONFIG) : undefined;
  const alive = existsSync(config.socketPath) && (await isServing({ path: config.socketPath }));
  const schedulers = [...config.schedulers, ...(dynconfig?.schedulers ?? [])];
  const { listen } = config.proxy;
  const proxy = {
    host: listen.host ?? '127.0.0.1',
    port: typeof listen.port === 'number' ? listen.port : listen.port.start,
  };

  const checks: Check[] = [
    ...checkRuntime(),
    good('configuration', path ?? 'defaults of today’s generation'),
    ...warnings.map((warning) => remark('configuration', warning, 'take the key out')),
    ...(await checkStore(config.store.directory)),
    await checkPort('proxy', proxy, alive),
    await checkPort('upload gRPC', config.upload.grpc, alive),
    await checkPort('pieces', config.upload.pieces, alive),
    await checkPort('health', config.health, alive),
    ...(config.metrics === undefined ? [] : [await checkPort('metrics', config.metrics, alive)]),
    ...(config.profiles === undefined ? [] : [await checkPort('profiles', config.profiles, alive)]),
    checkPeer(config.socketPath, alive),
    ...(config.manager === undefined ? [] : [await checkServer('manager', config.manager, config.tls.manager)]),
    ...(await Promise.all(schedulers.map((address) => checkServer('scheduler', address, config.tls.schedulers)))),
    ...(config.manager === undefined && schedulers.length === 0
      ? [
          remark(
            'scheduler',
            'none is configured',
            `name one in ${DYNCONFIG} (scheduler.addrs), or a manager: alone, a peer shares with nobody`,
          ),
        ]
      : []),
    ...(await checkContainerd(options.containerdConfig)),
    ...(await checkMounts(placesFor(options))),
  ];
  const healthy = checks.every(({ state }) => state !== 'bad');
  if (options.json === true) printJson({ healthy, checks });
  else for (const check of checks) print(shown(check));
  return healthy ? 0 : ERROR_SURFACES['failed-precondition'].exit;
}

const SIGNS = {
  good: styleText('green', 'ok  '),
  note: styleText('yellow', 'note'),
  bad: styleText('red', 'bad '),
} as const;

function shown({ name, state, found, advice }: Check): string {
  const line = `${SIGNS[state]}  ${name}: ${found}`;
  return advice === undefined ? line : `${line}\n      → ${advice}`;
}
