import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { silentLogger } from '@pantala/base';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { controlGroups, guardianGroups } from '../../src/guardian/control-groups.ts';
import { storeDescriptors, storedDescriptors } from '../../src/guardian/descriptor-store.ts';
import { handDown, inherited } from '../../src/guardian/held.ts';

const GENERATION = '01234567-89ab-cdef-0123-456789abcdef';
let scratch: string;
let fd: number;

beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'pantala-held-'));
  writeFileSync(join(scratch, 'content'), 'what is held');
  fd = openSync(join(scratch, 'content'), 'r');
});

afterEach(() => {
  closeSync(fd);
  rmSync(scratch, { recursive: true });
});

test('what is handed down arrives under the same name, and can be read', () => {
  const { stdio, env } = handDown({ generation: GENERATION, descriptors: { access: fd, fuse: fd } });
  const script = 'process.stdout.write(process.env.PANTALA_HELD + require("fs").readFileSync(4, "utf8"))';
  const options = { stdio: ['ignore', 'pipe', 'inherit', ...stdio] as const, env: { ...process.env, ...env } };
  const printed = execFileSync(process.execPath, ['-e', script], { ...options, stdio: [...options.stdio] }).toString();
  expect(printed).toBe(`${GENERATION}:access,fusewhat is held`);
  expect(inherited(env)).toEqual({ generation: GENERATION, descriptors: { access: 3, fuse: 4 } });
  expect(inherited({})).toBeUndefined();
  expect(() => inherited({ PANTALA_HELD: 'nonsense' })).toThrow(/names nothing/);
});

describe("systemd's descriptor store", () => {
  test('gets each descriptor with its name', async () => {
    const path = join(scratch, 'notify');
    const receiver = spawn('python3', [
      '-c',
      `import array, os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print('bound', flush=True)
for _ in range(2):
    data, control, _, _ = s.recvmsg(1000, 1000)
    fds = array.array('i', control[0][2])
    print(repr(data.decode()), os.pread(fds[0], 100, 0).decode(), flush=True)`,
      path,
    ]);
    const lines = createInterface({ input: receiver.stdout })[Symbol.asyncIterator]();
    expect((await lines.next()).value).toBe('bound');
    const held = { generation: GENERATION, descriptors: { access: fd, 'fuse-pending': fd } };
    storeDescriptors(held, { NOTIFY_SOCKET: path }, silentLogger);
    const line = (name: string) => `'FDSTORE=1\\nFDNAME=pantala.${GENERATION}.${name}' what is held`;
    expect((await lines.next()).value).toBe(line('access'));
    expect((await lines.next()).value).toBe(line('fuse-pending'));
    await once(receiver, 'close');
  });

  test('gives them back to the process that they are for', () => {
    const env = {
      LISTEN_PID: '77',
      LISTEN_FDS: '3',
      LISTEN_FDNAMES: `web:pantala.${GENERATION}.access:pantala.x.fuse`,
    };
    expect(storedDescriptors(env, 77)).toEqual({ generation: GENERATION, descriptors: { access: 4 } });
    expect(storedDescriptors(env, 78)).toBeUndefined();
    expect(storedDescriptors({}, 77)).toBeUndefined();
  });
});

test('control groups of both versions are found where they are mounted; the guardian has one below each root', () => {
  const entry = { id: 1, parentId: 0, device: '0:1', source: 'cgroup' };
  const mounts = [
    { ...entry, type: 'cgroup', target: '/sys/fs/cgroup/cpu,cpuacct', options: 'rw,cpu,cpuacct' },
    { ...entry, type: 'cgroup', target: '/sys/fs/cgroup/cpuset', options: 'rw,cpuset' },
    { ...entry, type: 'cgroup', target: '/sys/fs/cgroup/systemd', options: 'rw,xattr,name=systemd' },
    { ...entry, type: 'cgroup2', target: '/sys/fs/cgroup/unified', options: 'rw,nsdelegate' },
  ];
  const text = '9:name=systemd:/a\n5:cpuset:/\n4:memory:/not/mounted\n1:cpu,cpuacct:/pod/c\n0::/user.slice/x.scope\n';
  const groups = controlGroups(mounts, text);
  expect(groups.map(({ directory }) => directory)).toEqual([
    '/sys/fs/cgroup/systemd/a',
    '/sys/fs/cgroup/cpu,cpuacct/pod/c',
    '/sys/fs/cgroup/unified/user.slice/x.scope',
  ]);
  expect(guardianGroups(groups)).toEqual([
    '/sys/fs/cgroup/systemd/pantala-guardian',
    '/sys/fs/cgroup/cpu,cpuacct/pantala-guardian',
    '/sys/fs/cgroup/unified/pantala-guardian',
  ]);
});
