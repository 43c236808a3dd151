import { basename } from 'node:path';
import type { RpcAddress } from '@pantala/api';
import type { Logger } from '@pantala/base';
import type { ManagerOptions } from '@pantala/manager';
import type { PeerConfig } from '@pantala/peer';
import type { SchedulerOptions } from '@pantala/scheduler';
import { AdminServer, type MetricsRegistry, metricsRoutes, Profiler, profileRoutes, routed } from '@pantala/service';
import type { Address } from './config/shared.ts';

export type RoleName = 'manager' | 'scheduler' | 'peer';

/** Where upstream writes its logs. */
export const LOG_DIRECTORY = '/var/log/dragonfly';

interface LogPlace {
  readonly verbose: boolean;
  readonly console: boolean;
  readonly directory: string;
  /** Below `directory`, as upstream has it. */
  readonly path: string;
  /** In a directory that was named for this program alone. */
  readonly file: string;
}

/** A program with everything that it is told: plain data. */
export type Role =
  | { readonly name: 'manager'; readonly options: ManagerOptions }
  | {
      readonly name: 'scheduler';
      readonly options: SchedulerOptions;
      readonly metrics: Address | undefined;
      readonly profiles: Address | undefined;
    }
  | {
      readonly name: 'peer';
      readonly config: PeerConfig;
      readonly schedulers: readonly Address[];
      readonly dynconfigPath: string | undefined;
    };

/** A program as its files have it. */
export interface LoadedRole {
  readonly role: Role;
  readonly log: LogPlace;
  /** Keys without effect, with place and reason. */
  readonly warnings: readonly string[];
}

export interface RunningRole extends AsyncDisposable {
  /** For the line that says that it is ready. */
  readonly addresses: Readonly<Record<string, string | undefined>>;
}

/**
 * Reads a program's file, or takes the defaults.
 *
 * @throws `failed-precondition` naming every mistake with its place; `not-found` for a file that is named but not there
 */
export async function loadRole(
  name: RoleName,
  config: string | undefined,
  dynconfigPath: string | undefined,
): Promise<LoadedRole> {
  switch (name) {
    case 'manager': {
      const { readManagerFile } = await import('./config/manager-file.ts');
      const { options, operation, warnings } = readManagerFile(config);
      return {
        role: { name, options },
        warnings,
        log: logPlace(operation, operation.logDirectory, 'manager/core.log'),
      };
    }
    case 'scheduler': {
      const { readSchedulerFile } = await import('./config/scheduler-file.ts');
      const { options, operation, warnings } = readSchedulerFile(config, dynconfigPath);
      const { metrics, profiles } = operation;
      const log = logPlace(operation, operation.logDirectory, 'scheduler/core.log');
      return { role: { name, options, metrics, profiles }, warnings, log };
    }
    case 'peer': {
      const { defaultPeerConfig, loadPeerConfig, readDynconfig } = await import('@pantala/peer');
      const { config: peer, warnings } =
        config === undefined ? { config: defaultPeerConfig('today'), warnings: [] } : loadPeerConfig(config);
      const dynconfig =
        peer.manager === undefined && dynconfigPath !== undefined ? readDynconfig(dynconfigPath) : undefined;
      return {
        role: {
          name,
          config: peer,
          schedulers: [...peer.schedulers, ...(dynconfig?.schedulers ?? [])],
          dynconfigPath: dynconfig === undefined ? undefined : dynconfigPath,
        },
        warnings: [...warnings, ...(dynconfig?.warnings ?? [])],
        log: logPlace(peer.log, peer.log.directory, peerLogPath(peer.generation)),
      };
    }
  }
}

/** `daemon/core.log` of the older generation, `dfdaemon/dfdaemon.log` of today's. */
export function peerLogPath(generation: PeerConfig['generation']): string {
  return generation === 'older' ? 'daemon/core.log' : 'dfdaemon/dfdaemon.log';
}

function logPlace(
  given: { readonly verbose: boolean; readonly console: boolean },
  directory: string | undefined,
  path: string,
): LogPlace {
  const { verbose, console } = given;
  return { verbose, console, directory: directory ?? LOG_DIRECTORY, path, file: basename(path) };
}

interface RoleParts {
  readonly logger: Logger;
  readonly metrics: MetricsRegistry;
  readonly signal: AbortSignal;
}

/** Starts a program in this process; resolves when it answers. Each program's code is loaded only for itself. */
export async function startRole(role: Role, parts: RoleParts): Promise<RunningRole> {
  switch (role.name) {
    case 'manager': {
      const { startManager } = await import('@pantala/manager');
      const manager = await startManager(role.options, parts);
      return running(manager, manager.addresses);
    }
    case 'scheduler':
      return startScheduler(role, parts);
    case 'peer': {
      const { startPeer } = await import('@pantala/peer');
      const { config, schedulers, dynconfigPath } = role;
      const peer = await startPeer(config, {
        ...parts,
        schedulers,
        rehearse: true,
        ...(dynconfigPath === undefined ? {} : { dynconfigPath }),
      });
      const { addresses, ...rest } = running(peer, peer.addresses);
      return { ...rest, addresses: { ...addresses, socket: peer.socketPath, hostId: peer.hostId } };
    }
  }
}

async function startScheduler(role: Role & { name: 'scheduler' }, parts: RoleParts): Promise<RunningRole> {
  const { startScheduler: start } = await import('@pantala/scheduler');
  await using resources = new AsyncDisposableStack();
  const scheduler = resources.use(await start(role.options, parts));
  const metrics =
    role.metrics &&
    resources.use(
      await AdminServer.listen(
        { ...role.metrics, purpose: 'metrics' },
        routed(metricsRoutes(parts.metrics)),
        parts.logger,
      ),
    );
  const profiles =
    role.profiles &&
    resources.use(
      await AdminServer.listen(
        { ...role.profiles, purpose: 'pprof' },
        routed(profileRoutes(resources.use(await Profiler.start()))),
        parts.logger,
      ),
    );
  const owned = resources.move();
  return running(owned, { grpc: scheduler.address, metrics, profiles });
}

function running(
  program: AsyncDisposable,
  addresses: Readonly<Record<string, RpcAddress | Address | undefined>>,
): RunningRole {
  return {
    addresses: Object.fromEntries(
      Object.entries(addresses).flatMap(([purpose, address]) =>
        address === undefined ? [] : [[purpose, 'path' in address ? address.path : urlOf(address)]],
      ),
    ),
    [Symbol.asyncDispose]: () => program[Symbol.asyncDispose](),
  };
}

/** `http://HOST:PORT` that can be asked from this machine. */
export function urlOf({ host, port }: Address): string {
  const reachable = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host;
  return `http://${reachable.includes(':') ? `[${reachable}]` : reachable}:${port}`;
}
