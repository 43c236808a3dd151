import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  attachLoopDevice,
  LinuxError,
  MOUNT_ATTRIBUTES,
  mountFileSystem,
  mountSelfTest,
  mountTable,
  parseMountTable,
  unmount,
} from '../../src/index.ts';

const root = process.getuid?.() === 0;
const readOnly = MOUNT_ATTRIBUTES.readOnly;

let scratch: string;
let target: string;

beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'pantala-mounts-'));
  target = join(scratch, 'target');
  mkdirSync(target);
});

afterEach(async () => {
  await unmount(target, { detach: true }).catch(() => undefined);
  rmSync(scratch, { recursive: true, force: true });
});

describe.skipIf(!root)('mounts (as root)', () => {
  /** EROFS with a device table of `count` slots, each of one block, and no files. */
  function image(count: number): string {
    const path = join(scratch, 'image.erofs');
    const tree = join(scratch, 'tree');
    mkdirSync(tree);
    execFileSync('mkfs.erofs', ['-x-1', path, tree], { stdio: 'ignore' });
    // Super block at 1024 (EROFS on-disk format): incompatible features at 80, extra devices at 86, slot offset at 88.
    const bytes = Buffer.concat([readFileSync(path), Buffer.alloc(64 * 1024)]);
    const slots = Math.ceil(readFileSync(path).length / 128);
    bytes.writeUInt32LE(0, 1024 + 8); // compatible features: no checksum
    bytes.writeUInt32LE(bytes.readUInt32LE(1024 + 80) | 0x8 | 0x4, 1024 + 80);
    bytes.writeUInt16LE(count, 1024 + 86);
    bytes.writeUInt16LE(slots, 1024 + 88);
    for (let slot = 0; slot < count; slot++) bytes.writeUInt32LE(1, (slots + slot) * 128 + 64);
    writeFileSync(path, bytes);
    return path;
  }

  test('an EROFS image with 127 devices, which is more than fits into the data of mount(2)', async () => {
    const path = image(127);
    const devices = Array.from({ length: 127 }, (_, index) => {
      const device = join(scratch, `${index}`.padStart(64, 'a'));
      writeFileSync(device, '');
      truncateSync(device, 4096);
      return ['device', device] as const;
    });
    await mountFileSystem({
      type: 'erofs',
      parameters: [['source', path], ['ro', true], ...devices],
      attributes: readOnly,
      target,
    });
    expect(mountTable().find((entry) => entry.target === target)).toMatchObject({ type: 'erofs', source: path });
    expect(readdirSync(target)).toEqual([]);
    await unmount(target, { detach: false });
    expect(mountTable().find((entry) => entry.target === target)).toBeUndefined();
  });

  test('a loop device has the content of its file', async () => {
    const path = image(0);
    {
      await using device = await attachLoopDevice(path);
      await mountFileSystem({
        type: 'erofs',
        parameters: [
          ['source', device.path],
          ['ro', true],
        ],
        attributes: readOnly,
        target,
      });
    }
    expect(readdirSync(target)).toEqual([]);
  });

  test('says what the kernel says when it refuses', async () => {
    const path = join(scratch, 'nothing');
    writeFileSync(path, Buffer.alloc(8192));
    const failed = (...parameters: readonly (readonly [string, string | true])[]) =>
      mountFileSystem({ type: 'erofs', parameters: [['source', path], ...parameters], attributes: readOnly, target });
    await expect(failed()).rejects.toThrow('fsconfig(erofs, create) failed: EINVAL');
    await expect(failed(['nonsense', '1'])).rejects.toThrow(
      /fsconfig\(erofs, nonsense, 1\) failed: EINVAL \(.*Unknown parameter 'nonsense'\)/,
    );
    await expect(unmount(target, { detach: false })).rejects.toBeInstanceOf(LinuxError);
  });
});

test('lines of mountinfo, with escapes and optional fields', () => {
  const text = `36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/ro\\134ot rw,errors=continue
garbage
25 30 0:22 / /proc rw - proc  rw`;
  expect(parseMountTable(text)).toEqual([
    {
      id: 36,
      parentId: 35,
      device: '98:0',
      target: '/mnt 2',
      type: 'ext3',
      source: '/dev/ro\\ot',
      options: 'rw,errors=continue',
    },
    { id: 25, parentId: 30, device: '0:22', target: '/proc', type: 'proc', source: '', options: 'rw' },
  ]);
});

test.skipIf(!root)('every call that lazy mounts need works here, and each report says what it is for', async () => {
  const reports = await mountSelfTest(scratch);
  expect(reports.length).toBeGreaterThan(5);
  for (const report of reports) {
    expect(report.use.length).toBeGreaterThan(10);
    // SO_PEERPIDFD and FAN_PRE_ACCESS depend on the kernel; what is old says so.
    if (report.call !== 'fanotify FAN_PRE_ACCESS' && report.call !== 'SO_PEERPIDFD') {
      expect(report).toMatchObject({ works: true });
    }
  }
});
