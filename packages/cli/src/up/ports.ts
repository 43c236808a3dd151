import { createServer } from 'node:net';
import { PantalaError } from '@pantala/base';

/**
 * Ports that are given out: below those of outgoing connections (32768 by default on Linux), so that a program that is
 * restarted finds its port free again.
 */
const FIRST_PORT = 20_000;
const LAST_PORT = 32_000;

/** Hands out ports of the loopback address that are free now, each once. */
export class FreePorts {
  readonly #given = new Set<number>();
  // Two swarms on one machine begin at different places.
  #next = FIRST_PORT + Math.floor(Math.random() * (LAST_PORT - FIRST_PORT));

  /** @throws `resource-exhausted` when every port is taken */
  async take(): Promise<number> {
    for (let tried = 0; tried < LAST_PORT - FIRST_PORT; tried++) {
      const port = this.#next;
      this.#next = port + 1 >= LAST_PORT ? FIRST_PORT : port + 1;
      if (!this.#given.has(port) && (await isFree(port))) {
        this.#given.add(port);
        return port;
      }
    }
    throw new PantalaError('resource-exhausted', `no port from ${FIRST_PORT} to ${LAST_PORT} is free`);
  }

  /** The wanted port if it is free, else another one. */
  async prefer(port: number): Promise<number> {
    if (port === 0 || this.#given.has(port) || !(await isFree(port))) return this.take();
    this.#given.add(port);
    return port;
  }
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  const { promise, resolve } = Promise.withResolvers<boolean>();
  server.once('error', () => resolve(false));
  server.listen({ host: '127.0.0.1', port, exclusive: true }, () => server.close(() => resolve(true)));
  return promise;
}
