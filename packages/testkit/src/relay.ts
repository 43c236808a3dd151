import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { drained } from './sockets.ts';

/** What a relay does to the bytes that come back from its target. */
export type Fault =
  | { readonly kind: 'none' }
  /** Takes requests and lets nothing through any more, connections stay open. */
  | { readonly kind: 'stall' }
  /** Resets every connection, now and later. */
  | { readonly kind: 'cut' }
  /** Lets this many bytes a second through. */
  | { readonly kind: 'throttle'; readonly bytesPerSecond: number }
  /** Flips a bit in each part of this many bytes. */
  | { readonly kind: 'corrupt'; readonly every: number }
  /** Ends every connection after this many bytes of answers. */
  | { readonly kind: 'truncate'; readonly after: number }
  /** Each answer waits this long first: a far-away target. */
  | { readonly kind: 'delay'; readonly milliseconds: number };

/** A TCP relay that does harm. Counts what passes, so that nobody counts himself. */
export class Relay implements AsyncDisposable {
  readonly host: string;
  readonly port: number;
  bytesBack = 0;
  connections = 0;
  #fault: Fault = { kind: 'none' };
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server, host: string, port: number) {
    this.#server = server;
    this.host = host;
    this.port = port;
  }

  static async start(
    target: { readonly host: string; readonly port: number },
    listen: { readonly host: string; readonly port?: number },
  ): Promise<Relay> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const server = createServer({ allowHalfOpen: true });
    server.once('error', reject).listen({ host: listen.host, port: listen.port ?? 0 }, resolve);
    await promise;
    const address = server.address();
    const relay = new Relay(server, listen.host, typeof address === 'object' && address !== null ? address.port : 0);
    server.on('connection', (near) => relay.#join(near, target));
    return relay;
  }

  get fault(): Fault {
    return this.#fault;
  }

  set fault(fault: Fault) {
    this.#fault = fault;
    if (fault.kind === 'cut') for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    await promise;
  }

  #join(near: Socket, target: { readonly host: string; readonly port: number }): void {
    this.connections++;
    if (this.#fault.kind === 'cut') {
      near.resetAndDestroy();
      return;
    }
    const far = connect({ ...target, allowHalfOpen: true });
    for (const socket of [near, far]) {
      this.#sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('close', () => {
        this.#sockets.delete(socket);
        near.destroy();
        far.destroy();
      });
      socket.on('error', () => socket.destroy());
    }
    near.pipe(far);
    void this.#bringBack(far, near).catch(() => near.destroy());
  }

  async #bringBack(far: Socket, near: Socket): Promise<void> {
    let passed = 0;
    for await (const part of far as AsyncIterable<Buffer>) {
      let rest = part;
      while (rest.length > 0) {
        const fault = this.#fault;
        let now = rest;
        if (fault.kind === 'stall') {
          await sleep(20);
          if (near.destroyed) return;
          continue;
        }
        if (fault.kind === 'throttle') {
          now = rest.subarray(0, Math.max(1, Math.floor(fault.bytesPerSecond / 20)));
          await sleep((1000 * now.length) / fault.bytesPerSecond);
        } else if (fault.kind === 'delay') {
          await sleep(fault.milliseconds);
        } else if (fault.kind === 'corrupt') {
          now = Buffer.from(now);
          for (let at = fault.every - (passed % fault.every); at < now.length; at += fault.every) {
            now[at] = (now[at] as number) ^ 0x10;
          }
        } else if (fault.kind === 'truncate' && passed + now.length > fault.after) {
          near.write(now.subarray(0, Math.max(0, fault.after - passed)));
          near.destroySoon();
          return;
        }
        passed += now.length;
        this.bytesBack += now.length;
        rest = rest.subarray(now.length);
        if (!near.write(now)) await drained(near);
        if (near.destroyed) return;
      }
    }
    near.end();
  }
}
