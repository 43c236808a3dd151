import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createClient, dfdaemonV2 } from '@pantala/api';
import { Content, Origin, Scratch } from '@pantala/testkit';
import { expect, test } from 'vitest';
import { testPeer } from '../support.ts';

const MIB = 1024 * 1024;

/** A small file system of its own. */
function smallDisk(path: string): Disposable {
  mkdirSync(path);
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${6 * MIB}`, 'tmpfs', path]);
  return { [Symbol.dispose]: () => void execFileSync('umount', [path]) };
}

test.skipIf(process.getuid?.() !== 0)(
  'a store without room: local programs get the content all the same (needs root to mount a tmpfs)',
  async () => {
    await using scratch = Scratch.create('full');
    await using origin = await Origin.start({ host: '127.0.0.1' });
    const content = new Content(10 * MIB + 5, 'full');
    const url = origin.serve('/file', content);
    using _disk = smallDisk(scratch.join('disk'));
    await using one = await testPeer({
      name: 'one',
      directory: scratch.join('disk'),
      change: (config) => ({ ...config, socketPath: scratch.join('d.sock') }),
    });
    using client = createClient(dfdaemonV2.DfdaemonDownload, { path: one.peer.socketPath });

    const outputPath = scratch.join('output');
    for await (const _ of client.downloadTask({ download: { url, outputPath } }));
    const sha256 = createHash('sha256').update(await readFile(outputPath));
    expect(sha256.digest('hex')).toBe(content.sha256);

    const other = scratch.join('other');
    const wrong = { url, outputPath: other, digest: `sha1:${'0'.repeat(40)}` };
    await expect(async () => {
      for await (const _ of client.downloadTask({ download: wrong }));
    }).rejects.toMatchObject({ code: 'data-loss' });
    expect(existsSync(other)).toBe(false);

    const hash = createHash('sha256');
    let at = 0n;
    for await (const { response } of client.downloadTask({ download: { url, needPieceContent: true } })) {
      if (response.case !== 'downloadPieceFinishedResponse') continue;
      expect(response.value.piece?.offset).toBe(at);
      at += response.value.piece?.length ?? 0n;
      hash.update(response.value.piece?.content ?? Buffer.alloc(0));
    }
    expect(hash.digest('hex')).toBe(content.sha256);
    const proxied = await fetch(`${one.proxy}/file`, { headers: { 'x-dragonfly-registry': origin.url } });
    expect(
      createHash('sha256')
        .update(Buffer.from(await proxied.arrayBuffer()))
        .digest('hex'),
    ).toBe(content.sha256);
  },
  60_000,
);
