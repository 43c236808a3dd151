import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs, styleText } from 'node:util';

const HELP = `Usage: ./test [--full] [--only SUITE]...

Runs the checks (types, lint, order of the packages) and the tests; installs what they need.

  --full        everything: 1 GiB files, hundreds of kills, long mutations, slow rate limits, and the programs of
                others that scripts/judges installs
  --only SUITE  check, unit, e2e, faults or judges; may be given more than once

Examples:
  ./test
  ./test --only unit
  ./test --full
`;

interface Suite {
  readonly name: string;
  readonly command: readonly string[];
  /** vitest writes its counts here. */
  readonly counts: boolean;
  /** Only with --full, or when it is named. */
  readonly full?: boolean;
}

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

interface VitestReport {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly numFailedTestSuites: number;
  readonly testResults: readonly { readonly name: string; readonly assertionResults: readonly Assertion[] }[];
}

interface Assertion {
  readonly fullName: string;
  readonly status: string;
}

const root = dirname(import.meta.dirname);
const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs');

const SUITES: readonly Suite[] = [
  { name: 'check', command: [join(root, 'scripts', 'check.ts')], counts: false },
  { name: 'unit', command: [vitest, 'run', '--config', 'vitest.config.ts'], counts: true },
  {
    name: 'e2e',
    command: [vitest, 'run', '--config', 'e2e/vitest.config.ts', '--exclude', 'e2e/{faults,judges}/**'],
    counts: true,
  },
  { name: 'faults', command: [vitest, 'run', '--config', 'e2e/vitest.config.ts', 'e2e/faults/'], counts: true },
  {
    name: 'judges',
    command: [vitest, 'run', '--config', 'e2e/vitest.config.ts', 'e2e/judges/'],
    counts: true,
    full: true,
  },
];

const { values } = parseArgs({
  options: {
    full: { type: 'boolean', default: false },
    only: { type: 'string', multiple: true },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
if (values.help) {
  process.stdout.write(HELP);
  process.exit(0);
}
const unknown = values.only?.filter((name) => !SUITES.some((suite) => suite.name === name)) ?? [];
if (unknown.length > 0) {
  process.stderr.write(`./test: no suite "${unknown.join('", "')}"; there are check, unit, e2e, faults and judges\n`);
  process.exit(64);
}

const total: Counts = { passed: 0, failed: 0, skipped: 0 };
const scratch = mkdtempSync(join(tmpdir(), 'pantala-test-'));
for (const suite of SUITES) {
  if (values.only === undefined ? suite.full === true && !values.full : !values.only.includes(suite.name)) continue;
  process.stdout.write(`${styleText('bold', `\n== ${suite.name}`)}\n`);
  const counts = runSuite(suite);
  total.passed += counts.passed;
  total.failed += counts.failed;
  total.skipped += counts.skipped;
}
rmSync(scratch, { recursive: true });

const skipFails = process.env.CI === 'true' && total.skipped > 0;
if (skipFails) process.stdout.write('\nIn CI a skipped test is a failure: see the reasons above.\n');
process.stdout.write(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`);
process.exitCode = total.failed > 0 || skipFails ? 1 : 0;

function runSuite(suite: Suite): Counts {
  const report = join(scratch, `${suite.name}.json`);
  const reporters = suite.counts ? ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`] : [];
  const { status } = spawnSync(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', ...suite.command, ...reporters],
    {
      cwd: root,
      stdio: ['ignore', 'inherit', 'inherit'],
      env: {
        ...process.env,
        PATH: `${dirname(process.execPath)}:${process.env.PATH}`,
        ...(values.full ? { PANTALA_FULL: '1' } : {}),
      },
    },
  );
  if (!suite.counts) return status === 0 ? { passed: 1, failed: 0, skipped: 0 } : { passed: 0, failed: 1, skipped: 0 };
  if (!existsSync(report)) return { passed: 0, failed: 1, skipped: 0 };
  const result = JSON.parse(readFileSync(report, 'utf8')) as VitestReport;
  for (const file of result.testResults) {
    for (const test of file.assertionResults) {
      if (test.status !== 'passed' && test.status !== 'failed') process.stdout.write(`skipped: ${test.fullName}\n`);
    }
  }
  // A file that fails to load has no tests that fail, and an unhandled error fails the run alone.
  const failed = Math.max(result.numFailedTests, result.numFailedTestSuites > 0 || status !== 0 ? 1 : 0);
  return { passed: result.numPassedTests, failed, skipped: result.numPendingTests + result.numTodoTests };
}
