import { describe, expect, it } from 'vitest';
import { AddressGuard, plainAddress } from '../../src/origin/address-guard.ts';
import { parseTarget } from '../../src/origin/target.ts';

function check(guard: AddressGuard, url: string): Promise<string> {
  const { hostname, port } = parseTarget(url);
  return guard.resolve(hostname, Number(port) || 80, undefined).then(
    ([first]) => first?.address ?? 'none',
    (error: { code: string }) => error.code,
  );
}

describe('AddressGuard', () => {
  it('refuses link-local addresses however they are written', async () => {
    const guard = new AddressGuard({});
    const urls = [
      'http://169.254.169.254/',
      'http://2852039166/',
      'http://0xa9fea9fe/',
      'http://0251.0376.0251.0376/',
      'http://169.254.43518/',
      'http://[::ffff:169.254.169.254]/',
      'http://[::ffff:a9fe:a9fe]/',
      'http://[64:ff9b::a9fe:a9fe]/',
      'http://[fe80::1]/',
      'http://[febf::1]/',
      'http://169。254。169。254/',
    ];
    for (const url of urls) expect([url, await check(guard, url)]).toEqual([url, 'permission-denied']);
  });

  it('allows everything else', async () => {
    const guard = new AddressGuard({});
    for (const address of ['127.0.0.1', '10.0.0.1', '192.168.1.1', '8.8.8.8', '[fc00::1]', '[::1]', '169.253.1.1']) {
      expect(await check(guard, `http://${address}/`)).toBe(address.replaceAll(/[[\]]/g, ''));
    }
  });

  it('refuses own listeners by any address of this machine, and other ports not', async () => {
    const guard = new AddressGuard({
      ownListeners: () => [
        { host: '0.0.0.0', port: 4001 },
        { host: '127.0.0.1', port: 4002 },
      ],
    });
    for (const host of ['127.0.0.1', '127.0.0.2', '[::1]', '0.0.0.0', 'localhost', '[::ffff:127.0.0.1]']) {
      expect(await check(guard, `http://${host}:4001/`)).toBe('permission-denied');
    }
    expect(await check(guard, 'http://0.0.0.0:4002/')).toBe('permission-denied');
    expect(await check(guard, 'http://127.0.0.2:4002/')).toBe('127.0.0.2');
    expect(await check(guard, 'http://127.0.0.1:5000/')).toBe('127.0.0.1');
    expect(await check(guard, 'http://8.8.8.8:4001/')).toBe('8.8.8.8');
  });

  it('keeps to lists of allowed and denied blocks', async () => {
    const guard = new AddressGuard({ allow: ['10.0.0.0/8', 'fd00::/8', '1.2.3.4'], deny: ['10.1.0.0/16'] });
    expect(await check(guard, 'http://10.2.0.1/')).toBe('10.2.0.1');
    expect(await check(guard, 'http://[fd00::1]/')).toBe('fd00::1');
    expect(await check(guard, 'http://1.2.3.4/')).toBe('1.2.3.4');
    expect(await check(guard, 'http://10.1.2.3/')).toBe('permission-denied');
    expect(await check(guard, 'http://8.8.8.8/')).toBe('permission-denied');
  });

  it('refuses rules that are no addresses', () => {
    for (const rule of ['example.org', '10.0.0.0/33', '10.0.0.0/', '10.0.0.0/8/8', '::/129', '']) {
      expect(() => new AddressGuard({ deny: [rule] })).toThrow(/no address and no CIDR block/);
    }
  });

  it('unwraps mapped addresses', () => {
    expect(plainAddress('::ffff:10.0.0.1')).toBe('10.0.0.1');
    expect(plainAddress('0:0:0:0:0:FFFF:0a00:0001')).toBe('10.0.0.1');
    expect(plainAddress('::ffff:0.0.0.1')).toBe('0.0.0.1');
    expect(plainAddress('fe80::1%eth0')).toBe('fe80::1');
  });
});
