import { closeSync, mkdirSync, openSync, readFileSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { accepts, type Content, type Place, Program, Scratch } from '@pantala/testkit';

const PORT = 8080;
/** Files lie in memory: the disk of a shared machine would be measured otherwise. */
export const MEMORY = '/dev/shm';

/** nginx as origin and as the thing to compare with: bench/nginx.conf. */
export class Nginx implements AsyncDisposable {
  readonly url: string;
  readonly program: Program;
  readonly #scratch: Scratch;

  private constructor(url: string, program: Program, scratch: Scratch) {
    this.url = url;
    this.program = program;
    this.#scratch = scratch;
  }

  /** @param options.counted writes an access log, which an origin needs and a rival must not have */
  static async start(place: Place, options: { readonly counted: boolean }): Promise<Nginx> {
    const scratch = Scratch.create('nginx', MEMORY);
    mkdirSync(scratch.join('files'));
    const template = readFileSync(join(import.meta.dirname, '..', 'nginx.conf'), 'utf8');
    const config = template
      .replaceAll('@FOLDER@', scratch.path)
      .replaceAll('@ROOT@', scratch.join('files'))
      .replaceAll('@LISTEN@', `${place.address}:${PORT}`)
      .replaceAll('@ACCESS_LOG@', options.counted ? `${scratch.join('access.log')} counted` : 'off');
    writeFileSync(scratch.join('nginx.conf'), config);
    const program = await Program.start('nginx', ['-c', scratch.join('nginx.conf')], {
      name: 'nginx',
      place,
      ready: () => accepts(place.address, PORT),
    });
    return new Nginx(`http://${place.address}:${PORT}`, program, scratch);
  }

  /** Makes a file of incompressible bytes. Returns its URL. */
  addFile(name: string, content: Content): string {
    const file = openSync(this.#scratch.join('files', name), 'w');
    for (const part of content.parts()) writeSync(file, part);
    closeSync(file);
    return `${this.url}/${name}`;
  }

  removeFile(name: string): void {
    rmSync(this.#scratch.join('files', name));
  }

  resetCount(): void {
    truncateSync(this.#scratch.join('access.log'));
  }

  /** Bytes of bodies and number of requests since the last reset, HEAD left out. */
  count(): { readonly bytes: number; readonly requests: number } {
    let bytes = 0;
    let requests = 0;
    for (const line of readFileSync(this.#scratch.join('access.log'), 'utf8').split('\n')) {
      const [sent, , method] = line.split(' ');
      if (method !== 'GET') continue;
      bytes += Number(sent);
      requests++;
    }
    return { bytes, requests };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.program[Symbol.asyncDispose]();
    await this.#scratch[Symbol.asyncDispose]();
  }
}
