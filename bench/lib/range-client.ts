import { connect, type Socket } from 'node:net';

/**
 * Asks for ranges over kept connections and measures each: run as a program of its own inside a namespace, with its
 * task as JSON in the only argument; prints the figures as JSON. Bare sockets: what it costs itself is the same, and
 * small, for whomever it asks.
 */
export interface RangeTask {
  /** Whom to connect to. */
  readonly host: string;
  readonly port: number;
  /** The request's target and Host header. */
  readonly target: string;
  readonly authority: string;
  readonly contentLength: number;
  readonly rangeLength: number;
  readonly requests: number;
  readonly connections: number;
  /** Of the offsets: random, not aligned, the same for the same seed. */
  readonly seed: number;
}

export interface RangeResult {
  /** Milliseconds of each request, in the order of their ends. */
  readonly latencies: readonly number[];
  readonly seconds: number;
  /** Answers with another status than 206 or another length. */
  readonly failures: number;
}

async function measure(task: RangeTask): Promise<RangeResult> {
  const latencies: number[] = [];
  let failures = 0;
  let left = task.requests;
  const random = generator(task.seed);
  const started = performance.now();
  const worker = async (): Promise<void> => {
    const connection = new Connection(task);
    while (left-- > 0) {
      const offset = Math.floor(random() * (task.contentLength - task.rangeLength));
      const begun = performance.now();
      const good = await connection.ask(offset, offset + task.rangeLength);
      latencies.push(performance.now() - begun);
      if (!good) failures++;
    }
    connection.close();
  };
  await Promise.all(Array.from({ length: task.connections }, worker));
  return { latencies, seconds: (performance.now() - started) / 1000, failures };
}

class Connection {
  readonly #task: RangeTask;
  readonly #socket: Socket;
  #head = '';
  #left = 0;
  #good = false;
  #settle: (good: boolean) => void = () => {};

  constructor(task: RangeTask) {
    this.#task = task;
    this.#socket = connect({ host: task.host, port: task.port, noDelay: true });
    this.#socket.on('data', (part: Buffer) => this.#take(part));
    this.#socket.on('error', () => this.#settle(false));
  }

  ask(start: number, end: number): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    this.#settle = resolve;
    const { target, authority } = this.#task;
    this.#socket.write(`GET ${target} HTTP/1.1\r\nHost: ${authority}\r\nRange: bytes=${start}-${end - 1}\r\n\r\n`);
    return promise;
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(part: Buffer): void {
    let body = part.length;
    if (this.#left === 0) {
      this.#head += part.toString('latin1');
      const end = this.#head.indexOf('\r\n\r\n');
      if (end < 0) return;
      const length = Number(/\r\ncontent-length: *(\d+)/i.exec(this.#head.slice(0, end))?.[1]);
      this.#good = this.#head.startsWith('HTTP/1.1 206') && length === this.#task.rangeLength;
      body = this.#head.length - end - 4;
      this.#left = length;
      this.#head = '';
    }
    this.#left -= body;
    if (this.#left === 0) this.#settle(this.#good);
  }
}

/** mulberry32: good enough for offsets, and the same everywhere. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// Last: a class is not there before its line was run.
if (process.argv[1] === import.meta.filename) {
  const task = JSON.parse(process.argv[2] ?? '{}') as RangeTask;
  process.stdout.write(`${JSON.stringify(await measure(task))}\n`);
  process.exit();
}
