const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

/** Upper ends of the levels from LEVEL0 on, in bytes; what is longer is one level more. */
const LEVEL_ENDS = [
  0,
  ...[1, 4, 8, 16, 32, 64, 128, 256, 512].map((length) => length * MIB),
  ...[1, 4, 8, 16, 32, 64, 128, 256, 512, 1024].map((length) => length * GIB),
];

/** The level of a content's length (bytes) that Dragonfly's metrics have as a label, from 0 to 20. */
export function taskSizeLevel(contentLength: number): number {
  const level = LEVEL_ENDS.findIndex((end) => contentLength <= end);
  return level === -1 ? LEVEL_ENDS.length : level;
}

/** Buckets of durations as Dragonfly's clients have them: 1 ms to about 2.3 hours, doubling. */
export const DURATION_BUCKETS: readonly number[] = Array.from({ length: 24 }, (_, exponent) => 2 ** exponent);
