/** Durations and sizes as upstream's two generations write them: Rust's humantime and bytesize, Go's time and Kubernetes' quantities. */

const MILLISECONDS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  sec: 1000,
  second: 1000,
  seconds: 1000,
  secs: 1000,
  m: 60_000,
  min: 60_000,
  mins: 60_000,
  minute: 60_000,
  minutes: 60_000,
  h: 3_600_000,
  hr: 3_600_000,
  hrs: 3_600_000,
  hour: 3_600_000,
  hours: 3_600_000,
  d: 86_400_000,
  day: 86_400_000,
  days: 86_400_000,
  w: 604_800_000,
  week: 604_800_000,
  weeks: 604_800_000,
};

const DURATION = /^\s*(?:\d+(?:\.\d+)?\s*[a-zµ]+\s*)+$/;
const DURATION_PART = /(\d+(?:\.\d+)?)\s*([a-zµ]+)/g;

/**
 * Milliseconds of `1h30m`, `500ms`, `10m0s`, `2days 3h` or `0`. Undefined for anything else: a bare number other
 * than 0 has no unit, and the two generations would read it differently.
 */
export function parseDuration(text: string): number | undefined {
  if (text.trim() === '0') return 0;
  if (text.length > 64 || !DURATION.test(text)) return undefined;
  let total = 0;
  for (const [, amount, unit] of text.matchAll(DURATION_PART)) {
    const factor = Object.hasOwn(MILLISECONDS, unit as string) ? MILLISECONDS[unit as string] : undefined;
    if (factor === undefined) return undefined;
    total += Number(amount) * factor;
  }
  return total;
}

const SIZE = /^\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?\s*$/i;
const SIZE_EXPONENT = ['', 'k', 'm', 'g', 't', 'p'];

/**
 * Bytes of `64MiB`, `1024Mi`, `10GB`, `50G` or `4096`: with an `i` powers of 1024, without it powers of 1000.
 * Undefined for anything else, and for what is no safe integer.
 */
export function parseSize(text: string): number | undefined {
  const match = SIZE.exec(text);
  if (match === null) return undefined;
  const [, amount, prefix, binary] = match as unknown as [string, string, string, string];
  if (prefix === '' && binary !== '') return undefined;
  const bytes = Number(amount) * (binary === '' ? 1000 : 1024) ** SIZE_EXPONENT.indexOf(prefix.toLowerCase());
  return Number.isSafeInteger(Math.round(bytes)) ? Math.round(bytes) : undefined;
}

/** `1.5 GiB`, for people. */
export function formatSize(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}
