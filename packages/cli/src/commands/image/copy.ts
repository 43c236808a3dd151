import { type CopyEvent, copyImage, parsePlatformText } from '@pantala/oci';
import { formatSize } from '@pantala/service';
import { counted, note, print, printJson } from '../../output.ts';
import { share } from '../../progress-line.ts';
import { type MovingOptions, moving } from './moving.ts';

interface CopyCommandOptions extends MovingOptions {
  readonly platform?: string;
}

export async function copy(from: string, to: string, options: CopyCommandOptions): Promise<number> {
  return await moving(from, to, options, async ({ source, target, line, common }) => {
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
      ...common,
      progress,
    });
    line.clear();
    if (options.json === true) printJson({ target: target.name, ...report });
    else {
      print(`${counted(report.blobs, 'blob')}, ${formatSize(report.bytes)} of them new`);
      print(`${target.name}@${report.digest}`);
    }
  });
}
