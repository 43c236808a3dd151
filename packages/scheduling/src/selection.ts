import type { Cluster } from './cluster.ts';
import { hash32, mix32 } from './hash.ts';
import { SEED_PARENT_LIMIT } from './options.ts';
import type { Peer } from './peer.ts';
import { covers } from './task.ts';

/** Bytes a second at which a measured parent gets half of the marks for bandwidth. */
const MIDDLE_BANDWIDTH = 25_000_000;

/** Elements of a location that count. */
const LOCATION_DEPTH = 5;

/** Candidates that a mesh looks at for each place it has to fill. */
const MESH_CHOICE = 3;

interface Weights {
  readonly free: number;
  readonly idc: number;
  readonly location: number;
  readonly bandwidth: number;
  readonly held: number;
}

/** A Dragonfly child waits at its few parents, so it matters what they have. */
const TREE_WEIGHTS: Weights = { free: 0.4, idc: 0.2, location: 0.1, bandwidth: 0.1, held: 0.2 };

/** In a mesh everybody's blocks count alike: the most complete parent for everybody would be overrun. */
const MESH_WEIGHTS: Weights = { free: 0.5, idc: 0.2, location: 0.1, bandwidth: 0.2, held: 0 };

/** The best parents for a child that may have `limit`; seeds come first in a mesh. Empty when there are none. */
export function chooseParents(cluster: Cluster, child: Peer, limit: number): Peer[] {
  const { task } = child;
  const chosen = new Map<string, Peer>();
  const candidates = new Map<string, Peer>();
  const consider = (parent: Peer, into: Map<string, Peer>): void => {
    const known = into.get(parent.host.id);
    if (known !== undefined && rankOfState(known) >= rankOfState(parent)) return;
    if (isUsable(cluster, child, parent)) into.set(parent.host.id, parent);
  };
  const sources = child.pantala ? chosen : candidates;
  for (const seed of task.seeds) {
    if (sources.size >= SEED_PARENT_LIMIT) break;
    consider(seed, sources);
  }
  const sourceLimit = sources.size + 1;
  for (const fetcher of task.fetchers) {
    if (sources.size >= sourceLimit) break;
    consider(fetcher, sources);
  }
  const sample = child.pantala
    ? Math.max(cluster.settings.filterParentLimit, MESH_CHOICE * limit)
    : cluster.settings.filterParentLimit;
  const start = mix32(hash32(child.id) + cluster.draws++);
  const local = task.suppliersByIdc.get(child.host.facts.idc.toLowerCase());
  if (local !== undefined) for (const parent of local.draw(sample >> 1, start)) consider(parent, candidates);
  for (const parent of task.suppliers.draw(sample, mix32(start))) consider(parent, candidates);

  const weights = child.pantala ? MESH_WEIGHTS : TREE_WEIGHTS;
  const scored = [...candidates.values()]
    .filter((parent) => !chosen.has(parent.host.id))
    .map((parent) => ({ parent, score: score(child, parent, weights), tie: hash32(parent.id, start) }))
    .sort((a, b) => b.score - a.score || a.tie - b.tie || (a.parent.id < b.parent.id ? -1 : 1));
  return [...chosen.values(), ...scored.map(({ parent }) => parent)].slice(0, limit);
}

/** Whether `parent` may serve `child` now. */
export function isUsable(cluster: Cluster, child: Peer, parent: Peer): boolean {
  if (!parent.task.suppliers.has(parent) || parent.host === child.host) return false;
  if (child.blocks(parent.host.id, cluster.now)) return false;
  if (!child.parents.has(parent) && !cluster.graph.hasSlot(parent.host)) return false;
  if (parent.sluggish && !parent.host.seed) return false;
  // A seed has the origin for what nobody holds yet.
  if (child.pantala && child.host.seed && !parent.holdsSomething) return false;
  if (child.pantala) return parent.pantala || (servesAlone(parent) && parent.parents.size === 0);
  if (!servesWaiting(parent) || !covers(parent.range, child.range)) return false;
  return !cluster.graph.closesCycle(child, parent);
}

function servesAlone(parent: Peer): boolean {
  return parent.complete || parent.state === 'BackToSource';
}

/** A child that waits needs a parent that is sure to get everything. */
function servesWaiting(parent: Peer): boolean {
  if (servesAlone(parent)) return true;
  if (parent.state !== 'Running' || !parent.streaming) return false;
  return parent.host.seed || parent.parents.size > 0 || parent.finishedPieces > 0;
}

/** Of two downloads on one host the further one counts. */
function rankOfState(peer: Peer): number {
  if (peer.complete) return 3;
  return peer.streaming ? 2 : 1;
}

function score(child: Peer, parent: Peer, weights: Weights): number {
  const { host } = parent;
  const mine = child.host.facts;
  const idc = mine.idc !== '' && mine.idc.toLowerCase() === host.facts.idc.toLowerCase() ? 1 : 0;
  const free = 1 / (1 + host.uploads / 4);
  const bandwidth = host.bandwidth === 0 ? 0.5 : host.bandwidth / (host.bandwidth + MIDDLE_BANDWIDTH);
  const pieces = parent.task.pieceCount;
  const held = parent.complete ? 1 : pieces === undefined || pieces === 0 ? 0 : parent.finishedPieces / pieces;
  return (
    weights.free * free +
    weights.idc * idc +
    weights.location * locationAffinity(mine.location, host.facts.location) +
    weights.bandwidth * bandwidth +
    weights.held * Math.min(1, held)
  );
}

/** Common elements from the widest on, of at most LOCATION_DEPTH. */
export function locationAffinity(a: string, b: string): number {
  if (a === '' || b === '') return 0;
  const left = a.toLowerCase();
  const right = b.toLowerCase();
  if (left === right) return 1;
  const parts = left.split('|', LOCATION_DEPTH);
  const others = right.split('|', LOCATION_DEPTH);
  let common = 0;
  while (common < parts.length && parts[common] === others[common]) common++;
  return common / LOCATION_DEPTH;
}
