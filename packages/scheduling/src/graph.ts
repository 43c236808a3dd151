import type { Host } from './host.ts';
import { CYCLE_SEARCH_LIMIT, type SchedulingSettings } from './options.ts';
import type { Peer } from './peer.ts';

/** Who serves whom. Every edge takes an upload slot of the parent's host. */
export class Graph {
  readonly #settings: SchedulingSettings;
  /** Called when a host that was full has a free slot. */
  readonly #onFreed: (host: Host) => void;
  edges = 0;

  constructor(settings: SchedulingSettings, onFreed: (host: Host) => void) {
    this.#settings = settings;
    this.#onFreed = onFreed;
  }

  slots(host: Host): number {
    return host.seed ? this.#settings.seedUploadLimit : this.#settings.uploadLimit;
  }

  hasSlot(host: Host): boolean {
    return host.uploads < this.slots(host);
  }

  /**
   * Whether `child` would wait for itself. Only Dragonfly peers wait at their parents, but what they wait for may
   * come by way of any peer, so the search follows every edge. A search that grows too large counts as a cycle.
   */
  closesCycle(child: Peer, parent: Peer): boolean {
    if (child.pantala) return false;
    if (child.children.size === 0) return child === parent;
    const seen = new Set<Peer>([parent]);
    for (const peer of seen) {
      if (peer === child || seen.size > CYCLE_SEARCH_LIMIT) return true;
      for (const ancestor of peer.parents) seen.add(ancestor);
    }
    return false;
  }

  link(child: Peer, parent: Peer): void {
    if (child.parents.has(parent)) return;
    child.parents.add(parent);
    parent.children.add(child);
    parent.host.uploads++;
    this.edges++;
  }

  unlink(child: Peer, parent: Peer): void {
    if (!child.parents.delete(parent)) return;
    parent.children.delete(child);
    const full = !this.hasSlot(parent.host);
    parent.host.uploads--;
    this.edges--;
    if (full) this.#onFreed(parent.host);
  }

  dropParents(child: Peer): void {
    for (const parent of Array.from(child.parents)) this.unlink(child, parent);
  }

  /** Returns the children that lost their parent. */
  dropChildren(parent: Peer): Peer[] {
    const children = [...parent.children];
    for (const child of children) this.unlink(child, parent);
    return children;
  }
}
