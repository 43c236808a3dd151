import { type CopyEvent, copyImage, openImageSource, openImageTarget, parsePlatformText } from '@pantala/oci';
import { formatSize } from '@pantala/service';
import { Interruption } from '../../interruption.ts';
import { type CommonOptions, counted, note, print, printJson } from '../../output.ts';
import { ProgressLine, share } from '../../progress-line.ts';
import { type AccessOptions, accessOf } from './access.ts';

interface CopyCommandOptions extends CommonOptions, AccessOptions {
  readonly platform?: string;
  readonly concurrency?: number;
  readonly progress: boolean;
}

export async function copy(from: string, to: string, options: CopyCommandOptions): Promise<number> {
  using interruption = new Interruption();
  const { signal } = interruption;
  using line = new ProgressLine(options.progress && options.json !== true);
  const access = accessOf(options, signal);
  await using source = await openImageSource(from, access);
  await using target = await openImageTarget(to, access);
  const running = new Map<string, string>();
  const progress = (event: CopyEvent): void => {
    if (event.kind === 'bytes') {
      running.set(event.digest, `${event.digest.slice(7, 19)}: ${share(event.done, event.size)}`);
      line.show(() => [...running.values()].join('; '));
    } else if (event.kind === 'blob') {
      running.delete(event.digest);
      line.clear();
      if (options.json !== true) note(`${event.digest}: ${formatSize(event.size)}, ${event.outcome}`);
    }
  };
  const report = await copyImage(source, target, {
    ...(options.platform === undefined ? {} : { platform: parsePlatformText(options.platform) }),
    ...(options.concurrency === undefined ? {} : { concurrency: options.concurrency }),
    progress,
    signal,
  });
  line.clear();
  if (options.json === true) printJson({ target: target.name, ...report });
  else {
    print(`${counted(report.blobs, 'blob')}, ${formatSize(report.bytes)} of them new`);
    print(`${target.name}@${report.digest}`);
  }
  return 0;
}
