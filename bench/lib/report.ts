import { readFileSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Spread, show } from './figures.ts';

/** One figure of a bench and what it is held against. */
export interface Figure {
  readonly name: string;
  readonly unit: string;
  readonly value: Spread;
  /** What is aimed at; undefined for figures that only explain others. */
  readonly aim?: { readonly atMost?: number; readonly atLeast?: number };
}

export interface BenchOptions {
  readonly runs: number;
  readonly json: boolean;
  readonly folder: string;
}

export interface BenchCommand<Own extends string> {
  readonly name: string;
  readonly what: string;
  /** Own options with their defaults; all take a value. */
  readonly own: Readonly<Record<Own, string>>;
  readonly runs: number;
}

/** Parses the command line that all benches share. Prints the help and ends when asked. */
export function benchOptions<Own extends string>(
  command: BenchCommand<Own>,
): BenchOptions & { readonly own: Readonly<Record<Own, string>> } {
  const own = Object.fromEntries(Object.keys(command.own).map((name) => [name, { type: 'string' as const }]));
  const { values } = parseArgs({
    options: {
      ...own,
      runs: { type: 'string' },
      json: { type: 'boolean' },
      out: { type: 'string' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  const given = values as Readonly<Record<string, string | boolean | undefined>>;
  if (given.help === true) {
    const lines = Object.entries<string>(command.own).map(([name, value]) => `  --${name} VALUE  (${value})`);
    process.stdout.write(
      `Usage: node bench/${command.name}.ts [--runs N] [--json] [--out FOLDER]\n\n${command.what}\n\n${lines.join('\n')}\n  --runs N  (${command.runs})\n  --json  the last line of stdout is the result\n  --out FOLDER  where the CSV and the SVG go (.)\n`,
    );
    process.exit(0);
  }
  const chosen = Object.fromEntries(
    Object.entries<string>(command.own).map(([name, fallback]) => [name, String(given[name] ?? fallback)]),
  ) as Record<Own, string>;
  return {
    runs: Number(given.runs ?? command.runs),
    json: given.json === true,
    folder: String(given.out ?? '.'),
    own: chosen,
  };
}

/** Lines that are no result: stdout's last line is the result's. */
export function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Prints the table, writes CSV and SVG, and ends with the JSON line when that was asked for. */
export function report(name: string, options: BenchOptions, figures: readonly Figure[], rows: readonly Row[]): void {
  const wide = Math.max(...figures.map((figure) => figure.name.length));
  const lines = figures.map((figure) => {
    const digits = figure.value.median >= 100 ? 0 : 3;
    return `${figure.name.padEnd(wide)}  ${show(figure.value, digits)} ${figure.unit}${verdict(figure)}`;
  });
  process.stdout.write(`${lines.join('\n')}\n`);
  writeFileSync(join(options.folder, `${name}.csv`), csv(rows));
  writeFileSync(join(options.folder, `${name}.svg`), svg(name, figures));
  if (options.json) process.stdout.write(`${JSON.stringify({ bench: name, machine: machine(), figures, rows })}\n`);
}

/** One measured run, flat. */
export type Row = Readonly<Record<string, string | number>>;

function verdict(figure: Figure): string {
  const { aim, value } = figure;
  if (aim?.atMost !== undefined)
    return `   ${value.median <= aim.atMost ? 'reached' : 'MISSED'}: at most ${aim.atMost}`;
  if (aim?.atLeast !== undefined)
    return `   ${value.median >= aim.atLeast ? 'reached' : 'MISSED'}: at least ${aim.atLeast}`;
  return '';
}

function machine(): Row {
  const [load = 0] = loadavg();
  return {
    node: process.version,
    kernel: readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim(),
    cpus: cpus().length,
    model: cpus()[0]?.model ?? '',
    load,
  };
}

function csv(rows: readonly Row[]): string {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  return `${[names.join(','), ...rows.map((row) => names.map((name) => row[name] ?? '').join(','))].join('\n')}\n`;
}

const BAR = { left: 330, width: 420, height: 22 };

/** Bars of the medians with their spread, each against its own aim (the line) or alone. */
function svg(name: string, figures: readonly Figure[]): string {
  const aimed = figures.filter(({ aim }) => aim !== undefined);
  const bars = aimed.map(({ name: title, value, aim, unit }, index) => {
    const limit = aim?.atMost ?? aim?.atLeast ?? 1;
    const scale = BAR.width / (2 * limit);
    const x = (figure: number): number => BAR.left + Math.min(BAR.width, figure * scale);
    const y = 40 + index * BAR.height;
    return [
      `<text x="${BAR.left - 8}" y="${y + 12}" text-anchor="end">${xml(title)}</text>`,
      `<rect x="${BAR.left}" y="${y}" width="${x(value.median) - BAR.left}" height="14" fill="#4a7"/>`,
      `<line x1="${x(value.min)}" x2="${x(value.max)}" y1="${y + 7}" y2="${y + 7}" stroke="#000"/>`,
      `<line x1="${x(limit)}" x2="${x(limit)}" y1="${y - 3}" y2="${y + 17}" stroke="#c33"/>`,
      `<text x="${BAR.left + BAR.width + 8}" y="${y + 12}">${xml(`${show(value)} ${unit}`)}</text>`,
    ].join('');
  });
  const height = 60 + aimed.length * BAR.height;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="960" height="${height}" font-family="sans-serif" font-size="12"><text x="10" y="20" font-size="15">${xml(name)}: bars are medians, the red line is the aim</text>${bars.join('')}</svg>\n`;
}

function xml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
