/**
 * Reads many changed bootstraps and prints as JSON what came of it.
 *
 * Usage: mutate.ts SEED COUNT BOOTSTRAP...
 */

import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Mutator, randomFrom, readMutation } from './mutations.ts';

const [seed, count, ...paths] = process.argv.slice(2);
const mutator = new Mutator(
  paths.map((path) => readFileSync(path)),
  randomFrom(Number(seed)),
);
// What the program itself needs, and code that is compiled late, is no growth.
for (let warm = 0; warm < 200; warm++) readMutation(mutator.next());
const before = process.memoryUsage().rss;
let accepted = 0;
let largest = before;
for (let index = 0; index < Number(count); index++) {
  const bytes = mutator.next();
  try {
    if (readMutation(bytes)) accepted++;
  } catch (error) {
    const path = join(mkdtempSync(join(tmpdir(), 'pantala-mutation-')), 'bootstrap');
    writeFileSync(path, bytes);
    throw new Error(`mutation ${index} of seed ${seed}, kept as ${path}`, { cause: error });
  }
  largest = Math.max(largest, process.memoryUsage.rss());
}
console.log(JSON.stringify({ accepted, growth: largest - before }));
