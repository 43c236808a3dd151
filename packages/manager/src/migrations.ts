import type { DatabaseSync } from 'node:sqlite';
import { PantalaError } from '@pantala/base';

/** Each brings the database one version on. Never change one that was released: append another. */
const MIGRATIONS: readonly string[] = [
  `CREATE TABLE cluster (
     id INTEGER PRIMARY KEY,
     name TEXT NOT NULL UNIQUE,
     bio TEXT NOT NULL DEFAULT '',
     is_default INTEGER NOT NULL DEFAULT 0,
     scheduler_config TEXT NOT NULL,
     client_config TEXT NOT NULL,
     seed_client_config TEXT NOT NULL,
     seed_peer_config TEXT NOT NULL,
     scopes TEXT NOT NULL
   ) STRICT;
   CREATE TABLE scheduler (
     id INTEGER PRIMARY KEY,
     cluster_id INTEGER NOT NULL REFERENCES cluster (id) ON DELETE CASCADE,
     hostname TEXT NOT NULL,
     ip TEXT NOT NULL,
     port INTEGER NOT NULL,
     idc TEXT,
     location TEXT,
     features TEXT NOT NULL,
     config TEXT NOT NULL,
     active INTEGER NOT NULL DEFAULT 0,
     UNIQUE (hostname, ip, cluster_id)
   ) STRICT;
   CREATE TABLE seed_peer (
     id INTEGER PRIMARY KEY,
     cluster_id INTEGER NOT NULL REFERENCES cluster (id) ON DELETE CASCADE,
     hostname TEXT NOT NULL,
     ip TEXT NOT NULL,
     port INTEGER NOT NULL,
     download_port INTEGER NOT NULL,
     type TEXT NOT NULL,
     idc TEXT,
     location TEXT,
     active INTEGER NOT NULL DEFAULT 0,
     UNIQUE (hostname, ip, cluster_id)
   ) STRICT;
   CREATE TABLE application (
     id INTEGER PRIMARY KEY,
     name TEXT NOT NULL UNIQUE,
     url TEXT NOT NULL,
     bio TEXT NOT NULL DEFAULT '',
     priority TEXT NOT NULL
   ) STRICT;`,
];

/**
 * Brings a database to the version of this program, in one transaction for each step.
 *
 * @throws `failed-precondition` for one that a newer program has written
 */
export function migrate(database: DatabaseSync): void {
  const version = Number(database.prepare('PRAGMA user_version').get()?.user_version ?? 0);
  if (version > MIGRATIONS.length) {
    throw new PantalaError(
      'failed-precondition',
      `the database has version ${version}, this program knows ${MIGRATIONS.length}: start a newer one`,
    );
  }
  for (const [index, statements] of MIGRATIONS.entries()) {
    if (index < version) continue;
    database.exec(`BEGIN IMMEDIATE; ${statements} PRAGMA user_version = ${index + 1}; COMMIT;`);
  }
}
