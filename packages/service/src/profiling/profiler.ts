import { Session } from 'node:inspector/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { PantalaError } from '@pantala/base';

/** Seconds of a CPU profile: upstream's default, and the longest that is worth its memory. */
export const DEFAULT_PROFILE_SECONDS = 10;
export const MAX_PROFILE_SECONDS = 300;
/** Samples a second: upstream's default, and the most that V8 manages without distorting what it measures. */
export const DEFAULT_PROFILE_FREQUENCY = 1000;
export const MAX_PROFILE_FREQUENCY = 10_000;
/** Bytes between two sampled allocations, as in Go's heap profile: too few samples to be felt. */
const HEAP_SAMPLE_INTERVAL = 512 * 1024;

/**
 * Profiles of the main thread by V8's inspector. Allocations are sampled from `start` on, so that a heap profile
 * shows what is alive and was allocated since; CPU is sampled only while a profile is being made.
 */
export class Profiler implements AsyncDisposable {
  readonly #session = new Session();
  #cpuBusy = false;

  static async start(): Promise<Profiler> {
    const profiler = new Profiler();
    profiler.#session.connect();
    await profiler.#session.post('HeapProfiler.enable');
    await profiler.#session.post('HeapProfiler.startSampling', { samplingInterval: HEAP_SAMPLE_INTERVAL });
    return profiler;
  }

  /**
   * Pprof's format, compressed.
   *
   * @throws `resource-exhausted` while another CPU profile is being made; `invalid-argument` beyond the limits
   */
  async cpu(seconds: number, frequency: number, signal: AbortSignal): Promise<Buffer> {
    if (!(seconds > 0 && seconds <= MAX_PROFILE_SECONDS && frequency > 0 && frequency <= MAX_PROFILE_FREQUENCY)) {
      throw new PantalaError(
        'invalid-argument',
        `seconds must be at most ${MAX_PROFILE_SECONDS}, frequency at most ${MAX_PROFILE_FREQUENCY}, both above 0`,
      );
    }
    if (this.#cpuBusy) {
      throw new PantalaError('resource-exhausted', 'another CPU profile is being made; try again when it is done');
    }
    this.#cpuBusy = true;
    try {
      await this.#session.post('Profiler.enable');
      await this.#session.post('Profiler.setSamplingInterval', { interval: Math.round(1_000_000 / frequency) });
      await this.#session.post('Profiler.start');
      await delay(seconds * 1000, undefined, { signal }).catch(() => undefined);
      const { profile } = await this.#session.post('Profiler.stop');
      const { encodeCpuProfile } = await import('./pprof.ts');
      return await encodeCpuProfile(profile);
    } finally {
      this.#cpuBusy = false;
    }
  }

  /** Pprof's format, compressed. */
  async heap(): Promise<Buffer> {
    const { profile } = await this.#session.post('HeapProfiler.getSamplingProfile');
    const { encodeHeapProfile } = await import('./pprof.ts');
    return encodeHeapProfile(profile, HEAP_SAMPLE_INTERVAL);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#session.disconnect();
  }
}
