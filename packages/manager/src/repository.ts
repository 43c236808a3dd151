import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync, type SQLOutputValue, type StatementSync } from 'node:sqlite';
import { DEFAULT_CLUSTER } from './cluster-config.ts';
import { migrate } from './migrations.ts';

export interface ClusterRow {
  readonly id: number;
  readonly name: string;
  readonly bio: string;
  readonly isDefault: boolean;
  /** JSON, as the wire carries it. */
  readonly schedulerConfig: string;
  readonly clientConfig: string;
  readonly seedClientConfig: string;
  readonly seedPeerConfig: string;
  readonly scopes: string;
}

/** What names a program of a cluster. */
export interface Member {
  readonly hostname: string;
  readonly ip: string;
  readonly clusterId: number;
}

export interface SchedulerRow extends Member {
  readonly id: number;
  readonly port: number;
  readonly idc: string | undefined;
  readonly location: string | undefined;
  /** JSON array of texts. */
  readonly features: string;
  readonly config: string;
  readonly active: boolean;
}

export interface SeedPeerRow extends Member {
  readonly id: number;
  readonly port: number;
  readonly downloadPort: number;
  readonly type: string;
  readonly idc: string | undefined;
  readonly location: string | undefined;
  readonly active: boolean;
}

export interface ApplicationRow {
  readonly id: number;
  readonly name: string;
  readonly url: string;
  readonly bio: string;
  /** JSON: `{value, urls: [{regex, value}]}`. */
  readonly priority: string;
}

export type MemberKind = 'scheduler' | 'seed_peer';
type Row = Record<string, SQLOutputValue>;

/** Everything that the manager remembers: the only place that speaks SQL. */
export class Repository implements Disposable {
  readonly #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  /** @param path of the SQLite file, made when it is missing; `:memory:` for none */
  constructor(path: string) {
    if (path !== ':memory:') mkdirSync(dirname(path), { recursive: true });
    this.#database = new DatabaseSync(path, { timeout: 5000, enableForeignKeyConstraints: true });
    this.#database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;');
    migrate(this.#database);
    this.#seed();
  }

  [Symbol.dispose](): void {
    this.#database.close();
  }

  /** There is always a cluster 1: whoever names none belongs to it. */
  #seed(): void {
    this.#run(
      `INSERT INTO cluster (id, name, bio, is_default, scheduler_config, client_config, seed_client_config,
         seed_peer_config, scopes) VALUES (1, 'cluster-1', '', 1, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
      JSON.stringify(DEFAULT_CLUSTER.schedulerConfig),
      JSON.stringify(DEFAULT_CLUSTER.clientConfig),
      JSON.stringify(DEFAULT_CLUSTER.seedClientConfig),
      JSON.stringify(DEFAULT_CLUSTER.seedPeerConfig),
      JSON.stringify(DEFAULT_CLUSTER.scopes),
    );
  }

  cluster(id: number): ClusterRow | undefined {
    return this.#get('SELECT * FROM cluster WHERE id = ?', toCluster, id);
  }

  upsertScheduler(row: Omit<SchedulerRow, 'id' | 'active'>): void {
    this.#run(
      `INSERT INTO scheduler (cluster_id, hostname, ip, port, idc, location, features, config)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (hostname, ip, cluster_id) DO UPDATE SET port = excluded.port, idc = excluded.idc,
           location = excluded.location, features = excluded.features, config = excluded.config`,
      row.clusterId,
      row.hostname,
      row.ip,
      row.port,
      row.idc ?? null,
      row.location ?? null,
      row.features,
      row.config,
    );
  }

  scheduler(member: Member): SchedulerRow | undefined {
    return this.#get(
      'SELECT * FROM scheduler WHERE hostname = ? AND ip = ? AND cluster_id = ?',
      toScheduler,
      member.hostname,
      member.ip,
      member.clusterId,
    );
  }

  /** Those that are active; the default cluster's first, then as they registered. 0: of every cluster. */
  activeSchedulers(clusterId: number): SchedulerRow[] {
    return this.#all(
      `SELECT scheduler.* FROM scheduler JOIN cluster ON cluster.id = cluster_id
         WHERE active = 1 AND (?1 = 0 OR cluster_id = ?1) ORDER BY is_default DESC, cluster_id, scheduler.id`,
      toScheduler,
      clusterId,
    );
  }

  upsertSeedPeer(row: Omit<SeedPeerRow, 'id' | 'active'>): void {
    this.#run(
      `INSERT INTO seed_peer (cluster_id, hostname, ip, port, download_port, type, idc, location)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (hostname, ip, cluster_id) DO UPDATE SET port = excluded.port,
           download_port = excluded.download_port, type = excluded.type, idc = excluded.idc,
           location = excluded.location`,
      row.clusterId,
      row.hostname,
      row.ip,
      row.port,
      row.downloadPort,
      row.type,
      row.idc ?? null,
      row.location ?? null,
    );
  }

  seedPeer(member: Member): SeedPeerRow | undefined {
    return this.#get(
      'SELECT * FROM seed_peer WHERE hostname = ? AND ip = ? AND cluster_id = ?',
      toSeedPeer,
      member.hostname,
      member.ip,
      member.clusterId,
    );
  }

  /** @param clusterId 0: of every cluster */
  activeSeedPeers(clusterId: number): SeedPeerRow[] {
    return this.#all(
      'SELECT * FROM seed_peer WHERE active = 1 AND (?1 = 0 OR cluster_id = ?1) ORDER BY cluster_id, id',
      toSeedPeer,
      clusterId,
    );
  }

  /** False when there was none. */
  deleteSeedPeer(member: Member): boolean {
    return this.#run(
      'DELETE FROM seed_peer WHERE hostname = ? AND ip = ? AND cluster_id = ?',
      member.hostname,
      member.ip,
      member.clusterId,
    );
  }

  /** False when nobody of that name has registered. */
  setActive(kind: MemberKind, member: Member, active: boolean): boolean {
    return this.#run(
      `UPDATE ${kind} SET active = ? WHERE hostname = ? AND ip = ? AND cluster_id = ?`,
      Number(active),
      member.hostname,
      member.ip,
      member.clusterId,
    );
  }

  activeMembers(kind: MemberKind): Member[] {
    return this.#all(`SELECT hostname, ip, cluster_id FROM ${kind} WHERE active = 1`, toMember);
  }

  applications(): ApplicationRow[] {
    return this.#all('SELECT * FROM application ORDER BY id', (row) => ({
      id: Number(row.id),
      name: String(row.name),
      url: String(row.url),
      bio: String(row.bio),
      priority: String(row.priority),
    }));
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#database.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #run(sql: string, ...values: (string | number | null)[]): boolean {
    return this.#statement(sql).run(...values).changes > 0;
  }

  #get<T>(sql: string, read: (row: Row) => T, ...values: (string | number)[]): T | undefined {
    const row = this.#statement(sql).get(...values);
    return row === undefined ? undefined : read(row);
  }

  #all<T>(sql: string, read: (row: Row) => T, ...values: (string | number)[]): T[] {
    return this.#statement(sql)
      .all(...values)
      .map(read);
  }
}

function optionalText(value: SQLOutputValue | undefined): string | undefined {
  return value === null || value === undefined ? undefined : String(value);
}

function toMember(row: Row): Member {
  return { hostname: String(row.hostname), ip: String(row.ip), clusterId: Number(row.cluster_id) };
}

function toCluster(row: Row): ClusterRow {
  return {
    id: Number(row.id),
    name: String(row.name),
    bio: String(row.bio),
    isDefault: row.is_default === 1,
    schedulerConfig: String(row.scheduler_config),
    clientConfig: String(row.client_config),
    seedClientConfig: String(row.seed_client_config),
    seedPeerConfig: String(row.seed_peer_config),
    scopes: String(row.scopes),
  };
}

function toScheduler(row: Row): SchedulerRow {
  return {
    ...toMember(row),
    id: Number(row.id),
    port: Number(row.port),
    idc: optionalText(row.idc),
    location: optionalText(row.location),
    features: String(row.features),
    config: String(row.config),
    active: row.active === 1,
  };
}

function toSeedPeer(row: Row): SeedPeerRow {
  return {
    ...toMember(row),
    id: Number(row.id),
    port: Number(row.port),
    downloadPort: Number(row.download_port),
    type: String(row.type),
    idc: optionalText(row.idc),
    location: optionalText(row.location),
    active: row.active === 1,
  };
}
