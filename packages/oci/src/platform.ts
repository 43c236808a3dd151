import { arch, platform } from 'node:process';
import { PantalaError } from '@pantala/base';
import type { ImageIndex, IndexEntry, Platform } from './manifest.ts';

const ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: 'amd64',
  x86_64: 'amd64',
  'x86-64': 'amd64',
  ia32: '386',
  i386: '386',
  aarch64: 'arm64',
  armhf: 'arm',
  armel: 'arm',
};

/** Names of architectures as the Go world has them, and the variants that are the default left out or filled in. */
export function normalizePlatform(given: Platform): Platform {
  const os = given.os.toLowerCase() === 'macos' ? 'darwin' : given.os.toLowerCase();
  const named = given.architecture.toLowerCase();
  const architecture = ARCHITECTURES[named] ?? named;
  const variant = normalVariant(named, architecture, given.variant?.toLowerCase());
  const { osVersion, osFeatures } = given;
  return {
    os,
    architecture,
    ...(variant === undefined ? {} : { variant }),
    ...(osVersion === undefined ? {} : { osVersion }),
    ...(osFeatures === undefined ? {} : { osFeatures }),
  };
}

function normalVariant(named: string, architecture: string, variant: string | undefined): string | undefined {
  if (architecture === 'arm64') return variant === 'v8' || variant === '8' ? undefined : variant;
  if (architecture === 'amd64') return variant === 'v1' ? undefined : variant;
  if (architecture !== 'arm') return variant;
  if (named === 'armel') return 'v6';
  if (variant === undefined || variant === '') return 'v7';
  return /^\d$/.test(variant) ? `v${variant}` : variant;
}

export function hostPlatform(): Platform {
  return normalizePlatform({ os: platform, architecture: arch });
}

/** `os/architecture[/variant]`. @throws `invalid-argument` */
export function parsePlatformText(text: string): Platform {
  const [os, architecture, variant, ...more] = text.split('/');
  if (!os || !architecture || more.length > 0) {
    throw new PantalaError('invalid-argument', `platform "${text}" is not os/architecture[/variant]`);
  }
  return normalizePlatform({ os, architecture, ...(variant === undefined ? {} : { variant }) });
}

export function formatPlatform({ os, architecture, variant }: Platform): string {
  return variant === undefined ? `${os}/${architecture}` : `${os}/${architecture}/${variant}`;
}

/** How well an image for `offered` runs on `wanted`: 0 is exact, more is worse, undefined is not at all. */
function distance(offered: Platform, wanted: Platform): number | undefined {
  const has = normalizePlatform(offered);
  const needs = normalizePlatform(wanted);
  if (has.os !== needs.os || has.architecture !== needs.architecture) return undefined;
  if (has.variant === needs.variant) return 0;
  const level = (variant: string | undefined) => Number(/^v(\d)/.exec(variant ?? 'v0')?.[1] ?? Number.NaN);
  const steps = level(needs.variant) - level(has.variant);
  return steps > 0 ? steps : undefined;
}

/**
 * The entry of an index that runs best on a platform: the same variant, else the nearest older one. Entries without
 * a platform (signatures, attestations, nested indexes) are none of them.
 *
 * @throws `not-found` listing what there is
 */
export function selectPlatform(index: ImageIndex, wanted: Platform): IndexEntry {
  let best: { entry: IndexEntry; distance: number } | undefined;
  for (const entry of index.manifests) {
    const away = entry.platform === undefined ? undefined : distance(entry.platform, wanted);
    if (away !== undefined && (best === undefined || away < best.distance)) best = { entry, distance: away };
  }
  if (best !== undefined) return best.entry;
  const offered = index.manifests.flatMap(({ platform }) => (platform === undefined ? [] : [formatPlatform(platform)]));
  throw new PantalaError(
    'not-found',
    `no image for ${formatPlatform(wanted)}; there is ${offered.slice(0, 20).join(', ') || 'none with a platform'}`,
  );
}
