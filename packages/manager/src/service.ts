import { isIP } from 'node:net';
import { type Handlers, managerV2, type Received } from '@pantala/api';
import { PantalaError } from '@pantala/base';
import { applicationMessage, schedulerMessage, seedPeerMessage } from './messages.ts';
import type { ManagerMetrics } from './metrics.ts';
import type { Presence } from './presence.ts';
import type { ClusterRow, Member, MemberKind, Repository, SchedulerRow, SeedPeerRow } from './repository.ts';

/** Bytes of texts that members register with: names of hosts and places are shorter. */
const MAX_TEXT_LENGTH = 1024;
/** Bytes of the configuration that a scheduler registers with. */
const MAX_CONFIG_LENGTH = 64 * 1024;
/** Features that a scheduler may have; upstream knows two. */
const MAX_FEATURES = 64;

/** manager.v2.Manager. */
export function managerHandlers(
  repository: Repository,
  presence: Presence,
  metrics: ManagerMetrics,
): Handlers<typeof managerV2.Manager> {
  const clusterOf = (id: number): ClusterRow => {
    const cluster = repository.cluster(id);
    if (cluster === undefined) throw new PantalaError('not-found', `there is no cluster ${id}`);
    return cluster;
  };
  const showScheduler = (row: SchedulerRow) =>
    schedulerMessage(row, clusterOf(row.clusterId), repository.activeSeedPeers(row.clusterId));
  const findScheduler = (member: Member): SchedulerRow => {
    const row = repository.scheduler(member);
    if (row === undefined) throw unknown('scheduler', member);
    return row;
  };
  const findSeedPeer = (member: Member): SeedPeerRow => {
    const row = repository.seedPeer(member);
    if (row === undefined) throw unknown('seed peer', member);
    return row;
  };

  return {
    async updateScheduler(request) {
      const member = memberOf(request, request.schedulerClusterId);
      clusterOf(member.clusterId);
      if (request.features.length > MAX_FEATURES || request.config.length > MAX_CONFIG_LENGTH) {
        throw new PantalaError('invalid-argument', 'too many features, or a configuration that is too long');
      }
      repository.upsertScheduler({
        ...member,
        port: portOf(request.port, 'port'),
        ...placeOf(request),
        features: JSON.stringify(request.features.length > 0 ? request.features : ['schedule', 'preheat']),
        config: Buffer.from(request.config).toString(),
      });
      return showScheduler(findScheduler(member));
    },

    async getScheduler(request) {
      return showScheduler(findScheduler(memberOf(request, request.schedulerClusterId)));
    },

    async listSchedulers(request) {
      metrics.searches.add();
      try {
        return { schedulers: repository.activeSchedulers(Number(request.schedulerClusterId)).map(showScheduler) };
      } catch (error) {
        metrics.failedSearches.add();
        throw error;
      }
    },

    async listApplications() {
      const applications = repository.applications();
      // What upstream's schedulers expect of an empty list.
      if (applications.length === 0) throw new PantalaError('not-found', 'there are no applications');
      return { applications: applications.map(applicationMessage) };
    },

    async updateSeedPeer(request) {
      const member = memberOf(request, request.seedPeerClusterId);
      clusterOf(member.clusterId);
      repository.upsertSeedPeer({
        ...member,
        port: portOf(request.port, 'port'),
        downloadPort: portOf(request.downloadPort, 'download_port'),
        type: boundedText(request.type, 'type'),
        ...placeOf(request),
      });
      const row = findSeedPeer(member);
      return seedPeerMessage(row, clusterOf(row.clusterId));
    },

    async getSeedPeer(request) {
      const row = findSeedPeer(memberOf(request, request.seedPeerClusterId));
      const schedulers = repository.activeSchedulers(row.clusterId).map(showScheduler);
      return seedPeerMessage(row, clusterOf(row.clusterId), schedulers);
    },

    async listSeedPeers() {
      return { seedPeers: repository.activeSeedPeers(0).map((row) => seedPeerMessage(row, clusterOf(row.clusterId))) };
    },

    async deleteSeedPeer(request) {
      const member = memberOf(request, request.seedPeerClusterId);
      if (!repository.deleteSeedPeer(member)) throw unknown('seed peer', member);
      return {};
    },

    async keepAlive(requests) {
      const messages = requests[Symbol.asyncIterator]();
      const first = await messages.next();
      if (first.done === true) return {};
      const kind = kindOf(first.value);
      await presence.follow(kind, memberOf(first.value, first.value.clusterId), messages);
      return {};
    },
  };
}

function kindOf({ sourceType }: Received<typeof managerV2.KeepAliveRequestSchema>): MemberKind {
  if (sourceType === managerV2.SourceType.SCHEDULER_SOURCE) return 'scheduler';
  if (sourceType === managerV2.SourceType.SEED_PEER_SOURCE) return 'seed_peer';
  throw new PantalaError('invalid-argument', 'only schedulers and seed peers keep themselves alive here');
}

/** Upstream's peers read addresses as literals and give up the whole list for one that is none. */
function memberOf(request: { readonly hostname: string; readonly ip: string }, clusterId: bigint): Member {
  if (isIP(request.ip) === 0) {
    throw new PantalaError('invalid-argument', `"${request.ip.slice(0, 64)}" is no IP address`);
  }
  if (request.hostname === '') throw new PantalaError('invalid-argument', 'the hostname is empty');
  return {
    hostname: boundedText(request.hostname, 'hostname'),
    ip: request.ip,
    // Who names no cluster belongs to the first one.
    clusterId: clusterId === 0n ? 1 : Number(clusterId),
  };
}

function placeOf(request: { readonly idc?: string | undefined; readonly location?: string | undefined }) {
  return {
    idc: request.idc === undefined ? undefined : boundedText(request.idc, 'idc'),
    location: request.location === undefined ? undefined : boundedText(request.location, 'location'),
  };
}

function portOf(port: number, name: string): number {
  if (port > 0 && port <= 65_535) return port;
  throw new PantalaError('invalid-argument', `${name} ${port} is not between 1 and 65535`);
}

function boundedText(text: string, name: string): string {
  if (text.length <= MAX_TEXT_LENGTH) return text;
  throw new PantalaError('invalid-argument', `${name} is longer than ${MAX_TEXT_LENGTH} characters`);
}

function unknown(kind: string, { hostname, ip, clusterId }: Member): PantalaError {
  return new PantalaError('not-found', `there is no ${kind} ${hostname} (${ip}) in cluster ${clusterId}`);
}
