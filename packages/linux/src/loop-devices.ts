import { open } from 'node:fs/promises';
import { constants } from 'node:os';
import { LinuxError } from './errors.ts';
import { addressOf, callOnThread, checked } from './libc.ts';

/** Requests and flags of linux/loop.h. */
const LOOP_CONFIGURE = 0x4c0a;
const LOOP_CTL_GET_FREE = 0x4c82;
const LO_FLAGS_READ_ONLY = 1;
const LO_FLAGS_AUTOCLEAR = 4;
/** Bytes of struct loop_config: fd, block size, struct loop_info64 (232 bytes), 64 reserved. */
const LOOP_CONFIG_LENGTH = 304;
/** lo_flags in it. */
const FLAGS_AT = 60;

/** How often another program may take the device that was free. */
const ATTEMPTS = 32;

/** A loop device; closing its descriptor lets go of it, and the kernel frees it when no mount uses it either. */
export interface LoopDevice extends AsyncDisposable {
  readonly path: string;
}

/**
 * A block device whose content is a file's (Linux 5.8), read only.
 *
 * @throws LinuxError; `unimplemented`
 */
export async function attachLoopDevice(file: string): Promise<LoopDevice> {
  await using backing = await open(file, 'r');
  await using control = await open('/dev/loop-control', 'r+');
  for (let attempt = 1; ; attempt++) {
    const free = await callOnThread('ioctl', [control.fd, LOOP_CTL_GET_FREE, 0]);
    const path = `/dev/loop${checked('ioctl', ['/dev/loop-control', 'LOOP_CTL_GET_FREE'], free)}`;
    const device = await open(path, 'r');
    try {
      const config = new DataView(new ArrayBuffer(LOOP_CONFIG_LENGTH));
      config.setUint32(0, backing.fd, true);
      config.setUint32(FLAGS_AT, LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR, true);
      const result = await callOnThread('ioctl', [device.fd, LOOP_CONFIGURE, addressOf(config)]);
      checked('ioctl', [path, 'LOOP_CONFIGURE', file], result);
      return { path, [Symbol.asyncDispose]: () => device.close() };
    } catch (error) {
      await device.close();
      const taken = error instanceof LinuxError && error.errno.number === constants.errno.EBUSY;
      if (!taken || attempt === ATTEMPTS) throw error;
    }
  }
}
