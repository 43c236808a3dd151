import { gunzipSync } from 'node:zlib';
import { silentLogger } from '@pantala/base';
import { Profile } from 'pprof-format';
import { describe, expect, it } from 'vitest';
import {
  AdminServer,
  healthRoutes,
  MetricsRegistry,
  metricsRoutes,
  Profiler,
  profileRoutes,
  routed,
  sharedPort,
} from '../../src/index.ts';

const anyPort = { host: '127.0.0.1', port: 0, purpose: 'test' };

describe('operators’ ports', () => {
  it('answer health on both generations’ paths', async () => {
    let healthy = true;
    const handler = routed(healthRoutes(['/server/ping'], () => healthy));
    await using server = await AdminServer.listen(anyPort, handler, silentLogger);
    expect((await fetch(`${server.url}/healthy`)).status).toBe(200);
    expect(await (await fetch(`${server.url}/server/ping`)).text()).toBe('');
    expect((await fetch(`${server.url}/healthy`, { method: 'POST' })).status).toBe(405);
    expect((await fetch(`${server.url}/constructor`)).status).toBe(404);
    healthy = false;
    expect((await fetch(`${server.url}/healthy`)).status).toBe(503);
  });

  it('name a port that is taken', async () => {
    await using server = await AdminServer.listen(anyPort, routed({}), silentLogger);
    await expect(
      AdminServer.listen({ ...anyPort, port: server.port, purpose: 'health' }, routed({}), silentLogger),
    ).rejects.toThrow(`port ${server.port} on 127.0.0.1 (health) is taken`);
  });

  it('show metrics to Prometheus', async () => {
    const metrics = new MetricsRegistry({ process: true });
    metrics.counter('things_total', { help: 'things', labels: ['type'] }).add(2, { type: 'A' });
    metrics.counter('things_total', { help: 'things', labels: ['type'] }).add(1, { type: 'A' });
    metrics.gauge('held', { help: 'held', collect: () => 7 });
    metrics.histogram('cost', { help: 'cost', buckets: [1, 2] }).observe(1.5);
    await using server = await AdminServer.listen(anyPort, routed(metricsRoutes(metrics)), silentLogger);
    const body = await (await fetch(`${server.url}/metrics`)).text();
    expect(body).toContain('things_total{type="A"} 3');
    expect(body).toContain('\nheld 7');
    expect(body).toContain('cost_bucket{le="2"} 1');
    expect(body).toContain('process_resident_memory_bytes');
  });

  it('give profiles that pprof reads, also through a shared port', async () => {
    await using profiler = await Profiler.start();
    await using own = await AdminServer.listen(anyPort, routed(profileRoutes(profiler)), silentLogger);
    const target = { host: '127.0.0.1', port: own.port };
    const handler = sharedPort({ dfdaemon: { debug: target }, manager: { debug: target } }, 'dfdaemon');
    await using shared = await AdminServer.listen(anyPort, handler, silentLogger);

    const busy = setInterval(burnOneMillisecond, 2);
    const asked = fetch(`${shared.url}/manager/debug/pprof/profile?seconds=0.5&frequency=1000`);
    const second = fetch(`${own.url}/debug/pprof/profile?seconds=0.5`);
    const statuses = (await Promise.all([asked, second])).map((response) => response.status);
    clearInterval(busy);
    expect(statuses.toSorted((a, b) => a - b)).toEqual([200, 429]);
    const answer = (await asked).ok ? await asked : await second;
    const compressed = Buffer.from(await answer.arrayBuffer());
    const profile = Profile.decode(gunzipSync(compressed));
    const strings = profile.stringTable.strings;
    expect(profile.sampleType.map((type) => strings[Number(type.type)])).toEqual(['samples', 'cpu']);
    expect(strings).toContain('burnOneMillisecond');
    const functions = new Map(profile.function.map((entry) => [entry.id, strings[Number(entry.name)]]));
    const locations = new Map(
      profile.location.map((entry) => [entry.id, functions.get(entry.line[0]?.functionId ?? 0)]),
    );
    const hot = profile.sample.filter(({ locationId }) =>
      locationId.some((id) => locations.get(id) === 'burnOneMillisecond'),
    );
    expect(hot.length).toBeGreaterThan(0);
    for (const sample of profile.sample) for (const id of sample.locationId) expect(locations.get(id)).toBeDefined();

    const kept = Array.from({ length: 50_000 }, (_, index) => ({ index, text: `object ${index}` }));
    const heap = Buffer.from(await (await fetch(`${shared.url}/debug/pprof/heap`)).arrayBuffer());
    expect(kept.length).toBe(50_000);
    expect(Profile.decode(gunzipSync(heap)).sample.length).toBeGreaterThan(0);

    expect((await fetch(`${own.url}/debug/pprof/profile?seconds=1e9`)).status).toBe(400);
    expect((await fetch(`${shared.url}/manager/metrics`)).status).toBe(404);
  });
});

function burnOneMillisecond(): void {
  const end = performance.now() + 1;
  while (performance.now() < end);
}
