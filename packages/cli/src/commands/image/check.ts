import { bytesOf } from '@pantala/base';
import { type CheckCount, checkAroundBootstrap, checkBlobs, DecodePool, differenceLine } from '@pantala/convert';
import type { Difference } from '@pantala/rafs';
import { formatSize } from '@pantala/service';
import { Interruption } from '../../interruption.ts';
import { counted, print, printJson } from '../../output.ts';
import { ProgressLine, share } from '../../progress-line.ts';
import { differencesFrom } from './against.ts';
import { type ImageInputOptions, type OpenedImage, openImage } from './input.ts';

interface CheckOptions extends ImageInputOptions {
  readonly against?: string;
  readonly threads?: number;
  readonly progress: boolean;
}

/** Exit status when something is wrong with the image, or it differs from what it is to be: that of wrong bytes. */
const FOUND = 76;

export async function checkImage(argument: string | undefined, options: CheckOptions): Promise<number> {
  using interruption = new Interruption();
  await using opened = await openImage(argument, options, interruption.signal);
  using line = new ProgressLine(options.progress && options.json !== true);
  const findings = new Findings(options.json === true, line);
  const problem = (message: string): void => findings.add('problem', message);
  if (opened.nydus !== undefined) {
    await checkAroundBootstrap(opened.nydus, opened.blobs, { problem, signal: interruption.signal });
  }
  const count = await checkEveryBlob(opened, options, findings, line, interruption.signal);
  if (options.against !== undefined) {
    for await (const difference of differencesFrom(options.against, opened, options, interruption.signal)) {
      findings.add('difference', differenceLine(difference), difference);
    }
  }
  line.clear();
  const { problems, differences } = findings;
  const ok = problems + differences === 0;
  if (options.json === true) printJson({ ok, ...count, problems, differences });
  else if (ok) print(`${opened.name}: ${summary(opened, count)}, all right`);
  else
    print(
      `${opened.name}: ${summary(opened, count)}; ${counted(problems, 'problem')}, ${counted(differences, 'difference')}`,
    );
  return ok ? 0 : FOUND;
}

async function checkEveryBlob(
  opened: OpenedImage,
  options: CheckOptions,
  findings: Findings,
  line: ProgressLine,
  signal: AbortSignal,
): Promise<CheckCount> {
  await using pool = new DecodePool(options.threads);
  const total = opened.image.blobs.reduce((sum, { compressedSize }) => sum + compressedSize, 0);
  let done = 0;
  return await checkBlobs(opened.blobs, {
    pool,
    signal,
    problem: (message) => findings.add('problem', message),
    progress: (bytes) => {
      done += bytes;
      line.show(() => `checking: ${share(done, total)}`);
    },
  });
}

function summary(opened: OpenedImage, { chunks, bytes }: CheckCount): string {
  return `${counted(opened.image.blobs.length, 'blob')}, ${counted(chunks, 'chunk')}, ${formatSize(bytes)}`;
}

/** Prints what is found as it is found, a line each, and counts it. */
class Findings {
  problems = 0;
  differences = 0;
  readonly #json: boolean;
  readonly #line: ProgressLine;

  constructor(json: boolean, line: ProgressLine) {
    this.#json = json;
    this.#line = line;
  }

  add(kind: 'problem' | 'difference', message: string, difference?: Difference): void {
    if (kind === 'problem') this.problems++;
    else this.differences++;
    this.#line.clear();
    if (!this.#json) print(message);
    else if (difference === undefined) printJson({ problem: message });
    else printJson({ difference: { ...difference, path: bytesOf(difference.path).toString() } });
  }
}
