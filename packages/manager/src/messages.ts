import type { commonV2, managerV2, Sent } from '@pantala/api';
import type { ApplicationRow, ClusterRow, SchedulerRow, SeedPeerRow } from './repository.ts';

const stateOf = (active: boolean) => (active ? 'active' : 'inactive');
const bytesOf = (json: string) => Buffer.from(json);
const optional = <K extends string>(key: K, value: string | undefined) =>
  (value === undefined ? {} : { [key]: value }) as { [P in K]?: string };

export function schedulerMessage(
  row: SchedulerRow,
  cluster: ClusterRow,
  seedPeers: readonly SeedPeerRow[],
): Sent<typeof managerV2.SchedulerSchema> {
  return {
    id: BigInt(row.id),
    hostname: row.hostname,
    ip: row.ip,
    port: row.port,
    ...optional('idc', row.idc),
    ...optional('location', row.location),
    state: stateOf(row.active),
    schedulerClusterId: BigInt(row.clusterId),
    schedulerCluster: {
      id: BigInt(cluster.id),
      name: cluster.name,
      bio: cluster.bio,
      config: bytesOf(cluster.schedulerConfig),
      clientConfig: bytesOf(cluster.clientConfig),
      seedClientConfig: bytesOf(cluster.seedClientConfig),
      scopes: bytesOf(cluster.scopes),
    },
    seedPeers: seedPeers.map((seedPeer) => seedPeerMessage(seedPeer, cluster)),
    features: bytesOf(row.features),
  };
}

export function seedPeerMessage(
  row: SeedPeerRow,
  cluster: ClusterRow,
  schedulers: Sent<typeof managerV2.SchedulerSchema>[] = [],
): Sent<typeof managerV2.SeedPeerSchema> {
  return {
    id: BigInt(row.id),
    hostname: row.hostname,
    type: row.type,
    ...optional('idc', row.idc),
    ...optional('location', row.location),
    ip: row.ip,
    port: row.port,
    downloadPort: row.downloadPort,
    state: stateOf(row.active),
    seedPeerClusterId: BigInt(row.clusterId),
    seedPeerCluster: {
      id: BigInt(cluster.id),
      name: cluster.name,
      bio: cluster.bio,
      config: bytesOf(cluster.seedPeerConfig),
    },
    schedulers,
  };
}

export function applicationMessage(row: ApplicationRow): Sent<typeof managerV2.ApplicationSchema> {
  const priority = JSON.parse(row.priority) as {
    readonly value: commonV2.Priority;
    readonly urls: readonly { readonly regex: string; readonly value: commonV2.Priority }[];
  };
  return {
    id: BigInt(row.id),
    name: row.name,
    url: row.url,
    bio: row.bio,
    priority: { value: priority.value, urls: [...priority.urls] },
  };
}
