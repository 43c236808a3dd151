import { createRequire } from 'node:module';
import { PantalaError } from '@pantala/base';
import type { KoffiFunc } from 'koffi';
import { errnoOf, LinuxError } from './errors.ts';

/** How a function of the C library is called here. Every one of them returns -1 and sets errno when it fails. */
const PROTOTYPES = {
  sendfile: 'int64_t sendfile(int out, int in, void *offset, size_t count)',
  copy_file_range:
    'int64_t copy_file_range(int in, void *in_offset, int out, void *out_offset, size_t length, unsigned int flags)',
  // Variadic in C; an int in third place is passed alike on x86-64 and arm64, and koffi's variadic calls are never
  // asynchronous.
  ioctl: 'int ioctl(int fd, unsigned long request, int argument)',
  flock: 'int flock(int fd, int operation)',
  fallocate: 'int fallocate(int fd, int mode, int64_t offset, int64_t length)',
} as const;

export type LibcFunction = keyof typeof PROTOTYPES;

export const LIBC_FUNCTIONS = Object.keys(PROTOTYPES) as readonly LibcFunction[];

type Argument = number | bigint | BigInt64Array | null;

type NativeFunction = KoffiFunc<(...args: Argument[]) => number | bigint>;

class Libc {
  readonly #functions = new Map<LibcFunction, NativeFunction | string>();
  readonly #errno: () => number;

  constructor(koffi: typeof import('koffi')) {
    this.#errno = () => koffi.errno();
    // No name: the C library that Node itself runs on, glibc or musl.
    const library = koffi.load(null);
    for (const name of LIBC_FUNCTIONS) {
      try {
        this.#functions.set(name, library.func(PROTOTYPES[name]));
      } catch (error) {
        this.#functions.set(name, `the C library has no ${name}: ${PantalaError.from(error).message}`);
      }
    }
  }

  missing(name: LibcFunction): string | undefined {
    const found = this.#functions.get(name);
    return typeof found === 'string' ? found : undefined;
  }

  function(name: LibcFunction): NativeFunction {
    const found = this.#functions.get(name);
    if (found === undefined || typeof found === 'string') {
      throw new PantalaError('unimplemented', found ?? `the C library has no ${name}`);
    }
    return found;
  }

  /** Only right at once after a call, before anything else runs. */
  errno(): number {
    return this.#errno();
  }
}

let loaded: Libc | string | undefined;

/** The C library, or why it cannot be called. Loaded at the first use: 15 ms and some 5 MB. */
function load(): Libc | string {
  if (loaded !== undefined) return loaded;
  if (process.platform !== 'linux') {
    loaded = `needs Linux; this is ${process.platform}`;
    return loaded;
  }
  try {
    const require = createRequire(import.meta.url);
    loaded = new Libc(require('koffi') as typeof import('koffi'));
  } catch (error) {
    loaded = `koffi does not load: ${PantalaError.from(error).message}`;
  }
  return loaded;
}

function libc(): Libc {
  const library = load();
  if (typeof library === 'string') throw new PantalaError('unimplemented', library);
  return library;
}

/** Why a function cannot be called at all; undefined when it can. */
export function whyMissing(name: LibcFunction): string | undefined {
  const library = load();
  return typeof library === 'string' ? library : library.missing(name);
}

/** What a call answered: its result, or minus its errno. */
export type Result = number;

/** A call on this thread, for those that do not block. @throws `unimplemented` */
export function callNow(name: LibcFunction, args: readonly Argument[]): Result {
  const library = libc();
  const result = Number(library.function(name)(...args));
  return result === -1 ? -library.errno() : result;
}

/** A call on a thread of libuv's pool. @throws `unimplemented` */
export async function callOnThread(name: LibcFunction, args: readonly Argument[]): Promise<Result> {
  const library = libc();
  const native = library.function(name);
  return new Promise<Result>((resolve, reject) => {
    native.async(...args, (error: unknown, result: number | bigint) => {
      if (error !== null && error !== undefined) reject(PantalaError.from(error));
      else resolve(Number(result) === -1 ? -library.errno() : Number(result));
    });
  });
}

/** The result, when it is none of failure. @throws LinuxError */
export function checked(name: LibcFunction, args: readonly (string | number)[], result: Result): number {
  if (result < 0) throw new LinuxError(name, args, errnoOf(-result));
  return result;
}
