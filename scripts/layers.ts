import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The packages from the bottom up. One may import only what stands before it. */
export const LAYERS: readonly string[] = [
  'base',
  'linux',
  'api',
  'oci',
  'rafs',
  'store',
  'transfer',
  'scheduling',
  'swarm',
  'convert',
  'proxy',
  'service',
  'lazyfs',
  'scheduler',
  'manager',
  'peer',
  'cli',
  'testkit',
];

/** The programs know nothing of each other, though one stands after another above. */
const PROGRAMS: ReadonlySet<string> = new Set(['scheduler', 'manager', 'peer']);

/** Static imports and exports, whose last line begins with a word or a closing brace, and calls of import(). */
const IMPORT = /(?:^(?:import|export|\}).*? from |^import |\bimport\()'(@?[^'./\s][^'\s]*)'/gm;

/** Every import that goes upwards, and every dependency that package.json names in vain or leaves out. */
export function layerFaults(root: string): string[] {
  const faults: string[] = [];
  const packages = readdirSync(join(root, 'packages'));
  for (const name of packages) {
    if (!LAYERS.includes(name))
      faults.push(`packages/${name} has no place in the order of the packages (scripts/layers.ts)`);
  }
  for (const [level, name] of LAYERS.entries()) {
    if (!packages.includes(name)) continue;
    const folder = join(root, 'packages', name);
    const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as {
      dependencies?: Record<string, string>;
    };
    const named = new Set(Object.keys(manifest.dependencies ?? {}));
    const used = new Set<string>();
    for (const file of sourceFiles(join(folder, 'src'))) {
      for (const match of readFileSync(file, 'utf8').matchAll(IMPORT)) {
        const imported = packageOf(match[1] as string);
        if (imported === undefined) continue;
        used.add(imported);
        if (!imported.startsWith('@pantala/')) continue;
        const target = imported.slice('@pantala/'.length);
        const upwards = LAYERS.indexOf(target) >= level;
        const sideways = PROGRAMS.has(name) && PROGRAMS.has(target);
        if (upwards || sideways) faults.push(`${file}: ${name} may not import ${target}`);
      }
    }
    for (const dependency of used) {
      if (!named.has(dependency))
        faults.push(`packages/${name}/package.json leaves out ${dependency}, which it imports`);
    }
    for (const dependency of named) {
      if (!used.has(dependency)) faults.push(`packages/${name}/package.json names ${dependency} in vain`);
    }
  }
  return faults;
}

function packageOf(specifier: string): string | undefined {
  if (specifier.startsWith('node:')) return undefined;
  const parts = specifier.split('/');
  return specifier.startsWith('@') ? parts.slice(0, 2).join('/') : parts[0];
}

function sourceFiles(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => join(entry.parentPath, entry.name));
}
