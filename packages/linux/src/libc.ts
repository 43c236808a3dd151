import { createRequire } from 'node:module';
import { PantalaError } from '@pantala/base';
import type { KoffiFunc } from 'koffi';
import { errnoOf, LinuxError } from './errors.ts';

/** How a function of the C library is called here. Every one of them returns -1 and sets errno when it fails. */
const PROTOTYPES = {
  sendfile: 'int64_t sendfile(int out, int in, void *offset, size_t count)',
  preadv2: 'int64_t preadv2(int fd, void *vector, int count, int64_t offset, int flags)',
  copy_file_range:
    'int64_t copy_file_range(int in, void *in_offset, int out, void *out_offset, size_t length, unsigned int flags)',
  // Variadic in C; a number or an address in third place is passed alike on x86-64 and arm64, and koffi's variadic
  // calls are never asynchronous.
  ioctl: 'int ioctl(int fd, unsigned long request, int64_t argument)',
  flock: 'int flock(int fd, int operation)',
  fallocate: 'int fallocate(int fd, int mode, int64_t offset, int64_t length)',
  read: 'int64_t read(int fd, void *buffer, size_t length)',
  write: 'int64_t write(int fd, void *buffer, size_t length)',
  poll: 'int poll(void *descriptors, unsigned long count, int timeout)',
  epoll_create1: 'int epoll_create1(int flags)',
  epoll_ctl: 'int epoll_ctl(int set, int operation, int fd, void *event)',
  epoll_wait: 'int epoll_wait(int set, void *events, int count, int timeout)',
  eventfd: 'int eventfd(unsigned int value, int flags)',
  memfd_create: 'int memfd_create(const char *name, unsigned int flags)',
  mmap: 'int64_t mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)',
  munmap: 'int munmap(int64_t address, size_t length)',
  mount: 'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
  umount2: 'int umount2(const char *target, int flags)',
  fanotify_init: 'int fanotify_init(unsigned int flags, unsigned int event_flags)',
  fanotify_mark: 'int fanotify_mark(int group, unsigned int flags, uint64_t mask, int directory, const char *path)',
  socket: 'int socket(int domain, int type, int protocol)',
  connect: 'int connect(int socket, const void *address, unsigned int length)',
  socketpair: 'int socketpair(int domain, int type, int protocol, void *pair)',
  getsockopt: 'int getsockopt(int socket, int level, int name, void *value, void *length)',
  sendmsg: 'int64_t sendmsg(int socket, void *message, int flags)',
  recvmsg: 'int64_t recvmsg(int socket, void *message, int flags)',
  mknod: 'int mknod(const void *path, unsigned int mode, uint64_t device)',
  utimensat: 'int utimensat(int directory, const void *path, void *times, int flags)',
  llistxattr: 'int64_t llistxattr(const void *path, void *names, size_t length)',
  lgetxattr: 'int64_t lgetxattr(const void *path, const void *name, void *value, size_t length)',
  lseek: 'int64_t lseek(int fd, int64_t offset, int whence)',
  lsetxattr: 'int lsetxattr(const void *path, const void *name, const void *value, size_t length, int flags)',
} as const;

/**
 * Calls that older C libraries have no function for, made by number. Calls that are this new have the same number on
 * every architecture (linux/asm-generic/unistd.h).
 */
const NUMBERED = {
  move_mount: [429, ['int', 'const char *', 'int', 'const char *', 'unsigned int']],
  fsopen: [430, ['const char *', 'unsigned int']],
  fsconfig: [431, ['int', 'unsigned int', 'const char *', 'const char *', 'int']],
  fsmount: [432, ['int', 'unsigned int', 'unsigned int']],
  pidfd_open: [434, ['int', 'unsigned int']],
  pidfd_getfd: [438, ['int', 'int', 'unsigned int']],
} as const satisfies Record<string, readonly [number, readonly string[]]>;

type NumberedCall = keyof typeof NUMBERED;

export type LibcFunction = keyof typeof PROTOTYPES | NumberedCall;

export const LIBC_FUNCTIONS = [...Object.keys(PROTOTYPES), ...Object.keys(NUMBERED)] as readonly LibcFunction[];

function isNumbered(name: LibcFunction): name is NumberedCall {
  return Object.hasOwn(NUMBERED, name);
}

/** Views must lie off the heap of V8 (a buffer of at least 64 bytes does) when another thread uses them. */
export type Argument = number | bigint | string | ArrayBufferView | null;

type NativeFunction = KoffiFunc<(...args: Argument[]) => number | bigint>;

class Libc {
  readonly #functions = new Map<LibcFunction, NativeFunction | string>();
  readonly #koffi: typeof import('koffi');
  readonly #library: ReturnType<typeof import('koffi').load>;

  constructor(koffi: typeof import('koffi')) {
    this.#koffi = koffi;
    // No name: the C library that Node itself runs on, glibc or musl.
    this.#library = koffi.load(null);
  }

  missing(name: LibcFunction): string | undefined {
    const found = this.#find(name);
    return typeof found === 'string' ? found : undefined;
  }

  function(name: LibcFunction): NativeFunction {
    const found = this.#find(name);
    if (typeof found === 'string') throw new PantalaError('unimplemented', found);
    return found;
  }

  /** Looked up when it is first wanted: few programs want all of them. */
  #find(name: LibcFunction): NativeFunction | string {
    let found = this.#functions.get(name);
    if (found !== undefined) return found;
    try {
      found = isNumbered(name) ? this.#numbered(name) : this.#library.func(PROTOTYPES[name]);
    } catch (error) {
      found = `the C library has no ${name}: ${PantalaError.from(error).message}`;
    }
    this.#functions.set(name, found);
    return found;
  }

  #numbered(name: NumberedCall): NativeFunction {
    const [number, types] = NUMBERED[name];
    const call: NativeFunction = this.#library.func('syscall', 'int64_t', ['int64_t', ...types]);
    return Object.assign((...args: Argument[]) => call(number, ...args), {
      async: (...args: Parameters<NativeFunction['async']>) => call.async(number, ...args),
      info: call.info,
    });
  }

  view(address: bigint, length: number): ArrayBuffer {
    return this.#koffi.view(address, length);
  }

  address(value: ArrayBufferView): bigint {
    return this.#koffi.address(value);
  }

  /** Only right at once after a call, before anything else runs. */
  errno(): number {
    return this.#koffi.errno();
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

/** Memory at an address, which must stay mapped as long as anything uses the buffer. @throws `unimplemented` */
export function memoryAt(address: number, length: number): ArrayBuffer {
  return libc().view(BigInt(address), length);
}

/** Where the bytes of a view lie; it must be off the heap of V8 and be kept as long as the address is used. */
export function addressOf(value: ArrayBufferView): bigint {
  return libc().address(value);
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
export function checked(name: string, args: readonly (string | number)[], result: Result): number {
  if (result < 0) throw new LinuxError(name, args, errnoOf(-result));
  return result;
}
