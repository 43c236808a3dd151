import { tmpdir } from 'node:os';
import { commonV2, create } from '@pantala/api';
import { describe, expect, test } from 'vitest';
import { HostMeter } from '../../src/host/facts.ts';
import { hostName } from '../../src/host/identity.ts';
import { cpuTimes, establishedConnections, memoryInfo, networkBytes } from '../../src/host/proc.ts';

const options = {
  directory: tmpdir(),
  idc: 'a',
  location: 'b|c',
  piecePort: 4005,
  downloadRate: 1_000_000,
  uploadRate: Number.POSITIVE_INFINITY,
};

describe('what a host tells of itself', () => {
  test('every group that a scheduler reads is there, with numbers that can be', () => {
    const host = create(commonV2.HostSchema, new HostMeter(options).facts());
    expect(host.cpu?.logicalCount).toBeGreaterThan(0);
    expect(host.cpu?.times?.user).toBeGreaterThan(0);
    expect(host.memory?.total).toBeGreaterThan(host.memory?.used ?? 0n);
    expect(host.memory?.processUsedPercent).toBeGreaterThan(0);
    expect(host.disk?.total).toBe((host.disk?.used ?? 0n) + (host.disk?.free ?? 0n));
    expect(host.network).toMatchObject({ idc: 'a', location: 'b|c', maxRxBandwidth: 8_000_000n });
    expect(host.network?.maxTxBandwidth).toBeGreaterThan(0n);
    expect(host.build?.gitVersion).toBe('pantala');
  });

  test('the configured name and address win', () => {
    const nothing = { ip: undefined, hostname: undefined, idc: undefined, location: undefined, schedulerClusterId: 1 };
    expect(hostName({ ...nothing, ip: '10.0.0.1', hostname: 'node-1' })).toEqual({
      ip: '10.0.0.1',
      hostname: 'node-1',
    });
    expect(hostName(nothing).ip).not.toBe('');
  });
});

describe('the kernel’s files', () => {
  test('cpu', () => {
    expect(cpuTimes('cpu  100 200 300 400 0 0 0 0 0 0\ncpu0 1 2 3 4')).toEqual([1, 2, 3, 4, 0, 0, 0, 0, 0, 0]);
  });

  test('memory', () => {
    expect(memoryInfo('MemTotal:       2048 kB\nHugePages_Total:  3\n')).toEqual(new Map([['MemTotal', 2_097_152]]));
  });

  test('network: loopback does not count', () => {
    const text = [
      'Inter-|   Receive                |  Transmit',
      ' face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs',
      '    lo: 500 1 0 0 0 0 0 0 500 1 0 0 0 0 0 0',
      '  eth0:1000 1 0 0 0 0 0 0 2000 1 0 0 0 0 0 0',
    ].join('\n');
    expect(networkBytes(text)).toEqual({ received: 1000, sent: 2000 });
  });

  test('connections', () => {
    const text = [
      '  sl  local_address rem_address   st tx_queue',
      '   0: 0100007F:0FA5 0100007F:D431 01 00000000:00000000',
      '   1: 0100007F:0FA5 00000000:0000 0A 00000000:00000000',
      '   2: 0100007F:1F90 0100007F:D432 01 00000000:00000000',
    ].join('\n');
    expect(establishedConnections(text)).toBe(2);
    expect(establishedConnections(text, 4005)).toBe(1);
  });
});
