import { create, toBinary } from '@bufbuild/protobuf';
import { anyPack } from '@bufbuild/protobuf/wkt';
import { Metadata, type ServiceError } from '@grpc/grpc-js';
import { PantalaError } from '@pantala/base';
import { describe, expect, test } from 'vitest';
import { BackendSchema } from '../../src/gen/errordetails/v2/errordetails_pb.ts';
import { StatusSchema } from '../../src/gen/google/rpc/status_pb.ts';
import { formatRpcAddress, MessageQueue, parseRpcAddress } from '../../src/index.ts';
import { fromServiceError, toStatus } from '../../src/rpc/errors.ts';

describe('addresses', () => {
  test.each([
    ['10.0.0.1:8002', { host: '10.0.0.1', port: 8002 }],
    ['scheduler.local:1', { host: 'scheduler.local', port: 1 }],
    ['[fd00::1]:8002', { host: 'fd00::1', port: 8002 }],
    ['unix:/run/d.sock', { path: '/run/d.sock' }],
    ['unix:///run/d.sock', { path: '/run/d.sock' }],
  ])('%s', (text, address) => {
    expect(parseRpcAddress(text)).toEqual(address);
    expect(parseRpcAddress(formatRpcAddress(address))).toEqual(address);
  });

  test.each(['', 'host', 'host:70000', 'fd00::1:8002', 'unix:relative', 'http://x:1'])('"%s" is none', (text) => {
    expect(() => parseRpcAddress(text)).toThrow(PantalaError);
  });
});

describe('a queue of messages', () => {
  test('keeps the order, ends, and drops what comes after', async () => {
    const queue = new MessageQueue<number>();
    queue.push(1);
    const reader = queue[Symbol.asyncIterator]();
    expect((await reader.next()).value).toBe(1);
    const waiting = reader.next();
    queue.push(2);
    queue.end();
    queue.push(3);
    expect((await waiting).value).toBe(2);
    expect((await reader.next()).done).toBe(true);
  });

  test('a failure comes after what was pushed before it', async () => {
    const queue = new MessageQueue<number>();
    queue.push(1);
    queue.fail(new PantalaError('data-loss', 'broken'));
    const reader = queue[Symbol.asyncIterator]();
    expect((await reader.next()).value).toBe(1);
    await expect(reader.next()).rejects.toThrow('broken');
  });

  test('a reader that never comes does not fill the memory', () => {
    const queue = new MessageQueue<number>();
    expect(() => {
      for (let index = 0; index < 100_000; index++) queue.push(index);
    }).toThrow('behind');
  });
});

describe('errors on the wire', () => {
  const serviceError = (code: number, metadata = new Metadata()): ServiceError =>
    Object.assign(new Error('failed'), { code, details: 'failed', metadata });

  test.each([
    [5, 'not-found'],
    [8, 'resource-exhausted'],
    [14, 'unavailable'],
    [10, 'unavailable'],
    [2, 'internal'],
    [99, 'internal'],
  ])('status %i is %s', (status, code) => {
    expect(fromServiceError(serviceError(status))).toMatchObject({ code, status });
  });

  test('the origin’s words are read as upstream writes them and as google.rpc.Status', () => {
    const json = new Metadata();
    json.set('grpc-status-details-bin', Buffer.from('{"message":"no","header":{"a":"b"},"status_code":404}'));
    expect(fromServiceError(serviceError(13, json))).toMatchObject({ code: 'origin', details: { status: 404 } });
    const packed = new Metadata();
    const backend = create(BackendSchema, { message: 'no', statusCode: 403 });
    const status = create(StatusSchema, { details: [anyPack(BackendSchema, backend)] });
    packed.set('grpc-status-details-bin', Buffer.from(toBinary(StatusSchema, status)));
    expect(fromServiceError(serviceError(13, packed))).toMatchObject({ code: 'origin', details: { status: 403 } });
  });

  test('details that nobody understands change nothing', () => {
    for (const bytes of ['{', '{"header":[null]}', '\u00ff\u00fe', 'null']) {
      const metadata = new Metadata();
      metadata.set('grpc-status-details-bin', Buffer.from(bytes, 'latin1'));
      expect(fromServiceError(serviceError(5, metadata)).message).toBe('failed');
    }
  });

  test('trailers stay below what HTTP/2 stacks accept', () => {
    const error = Object.assign(new PantalaError('origin', 'x'.repeat(100_000), { details: { status: 500 } }), {
      headers: { big: 'y'.repeat(100_000) },
    });
    const status = toStatus(error);
    const details = status.metadata.get('grpc-status-details-bin')[0];
    expect(status.details.length + (details?.length ?? 0)).toBeLessThan(16 * 1024);
    expect(JSON.parse(details?.toString() ?? '')).toMatchObject({ status_code: 500, header: {} });
  });
});
