import { Deal, type Holdings } from './holdings.ts';

/** Units of a neighbourhood: among equally rare units those of an earlier neighbourhood go first, for the reader. */
const NEIGHBOURHOOD_UNITS = 64;

/** Ranks, from the best: dealt to us (by number), by rarity, dealt to us but others have it, dealt to another. */
const MAX_HOLDERS = 255;
const NEIGHBOURHOODS = 65_536;
const TIES = 4096;
const RARITY_RANK = 2 ** 33;
const ELSEWHERE_RANK = 2 ** 37;
export const DEFERRED_RANK = 2 ** 38;

/**
 * How good a unit is to ask of a parent: lower is better, infinite while it is another peer's.
 *
 * @param holders parents that have the whole of the unit
 * @param patient whether units that were dealt to others are still theirs
 */
export function rankOf(salt: number, holdings: Holdings, unit: number, holders: number, patient: boolean): number {
  const scarcity = Math.min(holders, MAX_HOLDERS);
  const deal = holdings.dealOf(unit);
  if (deal === Deal.assigned && scarcity <= 1) return unit;
  if (deal === Deal.deferred && patient) return Number.POSITIVE_INFINITY;
  const spared = deal === Deal.deferred ? DEFERRED_RANK : deal === Deal.assigned ? ELSEWHERE_RANK : RARITY_RANK;
  const neighbourhood = Math.floor(unit / NEIGHBOURHOOD_UNITS) % NEIGHBOURHOODS;
  return spared + (scarcity * NEIGHBOURHOODS + neighbourhood) * TIES + mix(salt, unit);
}

/** Whether no unit from `unit` on can rank before `worst`, so that the search may end. */
export function nothingBetterFrom(unit: number, worst: number, holdings: Holdings): boolean {
  if (worst < RARITY_RANK) return true;
  // Who has everything is a holder of every unit: none is rarer than one held once, in the neighbourhood to come.
  if (unit % NEIGHBOURHOOD_UNITS !== 0 || holdings.assigned > 0 || !holdings.complete) return false;
  return worst < RARITY_RANK + (NEIGHBOURHOODS + (Math.floor(unit / NEIGHBOURHOOD_UNITS) % NEIGHBOURHOODS)) * TIES;
}

/** A number that stands for a host's name: its salt. */
export function hashText(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  return hash >>> 0;
}

/** A number below TIES that differs for each host and unit. */
function mix(salt: number, unit: number): number {
  let hash = Math.imul(salt ^ unit, 0x9e3779b1);
  hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca77);
  return ((hash ^ (hash >>> 13)) >>> 0) % TIES;
}
