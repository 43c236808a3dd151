interface Entry {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

/** Virtual time: what is to happen, in the order of its time, and of its planning where times are equal. */
export class Timeline {
  now = 0;
  #planned = 0;
  readonly #heap: Entry[] = [];

  /** @param delay milliseconds from now */
  after(delay: number, run: () => void): void {
    const heap = this.#heap;
    heap.push({ at: this.now + Math.max(0, delay), order: this.#planned++, run });
    let child = heap.length - 1;
    while (child > 0) {
      const parent = (child - 1) >> 1;
      if (!earlier(heap[child] as Entry, heap[parent] as Entry)) break;
      [heap[child], heap[parent]] = [heap[parent] as Entry, heap[child] as Entry];
      child = parent;
    }
  }

  /** Runs what comes next; false when nothing is planned, or only after `until`. */
  step(until: number): boolean {
    const heap = this.#heap;
    const first = heap[0];
    if (first === undefined || first.at > until) return false;
    const last = heap.pop() as Entry;
    if (heap.length > 0) {
      heap[0] = last;
      this.#sink();
    }
    this.now = first.at;
    first.run();
    return true;
  }

  #sink(): void {
    const heap = this.#heap;
    let parent = 0;
    while (true) {
      let least = parent;
      for (const child of [2 * parent + 1, 2 * parent + 2]) {
        if (child < heap.length && earlier(heap[child] as Entry, heap[least] as Entry)) least = child;
      }
      if (least === parent) return;
      [heap[parent], heap[least]] = [heap[least] as Entry, heap[parent] as Entry];
      parent = least;
    }
  }
}

function earlier(a: Entry, b: Entry): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}
