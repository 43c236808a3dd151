import { type ImageSource, type ImageTarget, openImageSource, openImageTarget } from '@pantala/oci';
import { Interruption } from '../../interruption.ts';
import type { CommonOptions } from '../../output.ts';
import { ProgressLine } from '../../progress-line.ts';
import { type AccessOptions, accessOf } from './access.ts';
import { misnamed } from './misnamed.ts';

/** Of commands that take an image from one place to another. */
export interface MovingOptions extends CommonOptions, AccessOptions {
  /** Layers or blobs at once. */
  readonly concurrency?: number;
  readonly progress: boolean;
}

export interface Moving {
  readonly source: ImageSource;
  readonly target: ImageTarget;
  readonly access: ReturnType<typeof accessOf>;
  readonly line: ProgressLine;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
  readonly common: { readonly concurrency?: number; readonly signal: AbortSignal };
}

/** Opens both places, and closes them when `act` has ended, however it does. */
export async function moving(
  from: string,
  to: string,
  options: MovingOptions,
  act: (moving: Moving) => Promise<void>,
): Promise<number> {
  using interruption = new Interruption();
  const { signal } = interruption;
  using line = new ProgressLine(options.progress && options.json !== true);
  const access = accessOf(options, signal);
  await using source = await openImageSource(from, access);
  await using target = await openImageTarget(to, access);
  const { concurrency } = options;
  const common = { signal, ...(concurrency === undefined ? {} : { concurrency }) };
  await act({ source, target, access, line, signal, common }).catch(async (thrown: unknown) => {
    throw await misnamed(from, thrown);
  });
  return 0;
}
