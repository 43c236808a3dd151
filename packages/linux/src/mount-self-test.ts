import { closeSync, fstatSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PantalaError } from '@pantala/base';
import { receiveDescriptors, sendDescriptors, socketPair } from './descriptor-passing.ts';
import { createSharedMemory, mapShared, POLLIN, pollReadable, WakeUp } from './descriptors.ts';
import { createAccessGroup, markFile, unmarkFile } from './fanotify.ts';
import { fileSystemOf } from './files.ts';
import { attachLoopDevice } from './loop-devices.ts';
import { MOUNT_ATTRIBUTES, mountFileSystem, mountTable, unmount } from './mounts.ts';
import { openPeerProcess, openProcess, takeDescriptor } from './pidfd.ts';
import type { CallReport } from './self-test.ts';

interface Probe {
  readonly call: string;
  readonly use: string;
  /** Throws when it does not work. */
  readonly run: (scratch: string) => Promise<void> | void;
}

const PROBES: readonly Probe[] = [
  {
    call: 'fsopen, fsconfig, fsmount, move_mount, umount2',
    use: 'mounts of images with any number of blobs; without them there are no lazy mounts',
    async run(scratch) {
      const target = join(scratch, 'target');
      mkdirSync(target);
      await mountFileSystem({
        type: 'tmpfs',
        parameters: [['source', 'pantala']],
        attributes: MOUNT_ATTRIBUTES.noSuid,
        target,
      });
      const seen = mountTable().some((entry) => entry.target === target && entry.type === 'tmpfs');
      await unmount(target, { detach: false });
      if (!seen) throw new Error('the mount does not show in /proc/self/mountinfo');
    },
  },
  {
    call: 'fanotify FAN_PRE_ACCESS',
    use: 'lazy mounts filled by the kernel’s events; without it the FUSE driver serves blobs',
    run(scratch) {
      const group = createAccessGroup();
      try {
        const path = join(scratch, 'marked');
        writeFileSync(path, 'x');
        markFile(group, path);
        if (!unmarkFile(group, path)) throw new Error('the mark was not there');
      } finally {
        closeSync(group);
      }
    },
  },
  {
    call: '/dev/fuse',
    use: 'lazy mounts on older kernels and on file systems without FAN_PRE_ACCESS',
    run() {
      closeSync(openSync('/dev/fuse', 'r+'));
    },
  },
  {
    call: 'ioctl LOOP_CONFIGURE',
    use: 'mounts where the kernel cannot mount EROFS from a file (before Linux 6.12)',
    async run(scratch) {
      const path = join(scratch, 'disk');
      writeFileSync(path, Buffer.alloc(4096));
      await using _device = await attachLoopDevice(path);
    },
  },
  {
    call: 'pidfd_open, pidfd_getfd',
    use: 'a worker that the guardian has not started takes over what it holds (upgrades); without it only its own do',
    run() {
      const ourselves = openProcess(process.pid);
      try {
        closeSync(takeDescriptor(ourselves, ourselves));
      } finally {
        closeSync(ourselves);
      }
    },
  },
  {
    call: 'SO_PEERPIDFD',
    use: 'the same, whatever has become of the guardian’s number; without it there are no upgrades under readers',
    run() {
      withPair((here) => closeSync(openPeerProcess(here)));
    },
  },
  {
    call: 'sendmsg, recvmsg with SCM_RIGHTS',
    use: 'systemd holds the descriptors of lazy mounts, too; without it worker, standby and guardian alone do',
    run() {
      withPair((here, there) => {
        sendDescriptors(here, Buffer.from('x'), [here]);
        const [received] = receiveDescriptors(there, 1).descriptors;
        if (received === undefined) throw new Error('no descriptor came');
        const same = fstatSync(received).ino === fstatSync(here).ino;
        closeSync(received);
        if (!same) throw new Error('another descriptor came');
      });
    },
  },
  {
    call: 'eventfd, poll',
    use: 'waiting for events without blocking the program’s end',
    run() {
      using wakeUp = new WakeUp();
      wakeUp.wake();
      if (pollReadable([wakeUp.fd], 0)[0] !== POLLIN) throw new Error('poll does not see the event');
    },
  },
  {
    call: 'memfd_create, mmap',
    use: 'the list of unanswered reads, which outlives the worker',
    run() {
      const fd = createSharedMemory('pantala-self-test');
      try {
        writeSync(fd, Buffer.from('x'.repeat(4096)), 0, 4096, 0);
        if (mapShared(fd, 4096)[4095] !== 'x'.charCodeAt(0)) throw new Error('it has other bytes');
      } finally {
        closeSync(fd);
      }
    },
  },
];

function withPair(run: (here: number, there: number) => void): void {
  const pair = socketPair();
  try {
    run(...pair);
  } finally {
    for (const fd of pair) closeSync(fd);
  }
}

/**
 * Tries the calls that lazy mounts need, for `doctor`.
 *
 * @param directory where blob caches are or will be: the file system decides whether it takes marks
 */
export async function mountSelfTest(directory: string = tmpdir()): Promise<CallReport[]> {
  const scratch = await mkdtemp(join(directory, 'pantala-self-test-'));
  try {
    const { type } = await fileSystemOf(scratch);
    const reports: CallReport[] = [];
    for (const { call, use, run } of PROBES) {
      try {
        await run(scratch);
        reports.push({ call, use, works: true });
      } catch (error) {
        reports.push({ call, use, works: false, reason: `${PantalaError.from(error).message} (on ${type})` });
      }
    }
    return reports;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
