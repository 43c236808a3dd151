import { type Place, run } from '@pantala/testkit';

/** Downloads with curl to nowhere. Resolves with curl's own measure of the seconds. */
export async function curlSeconds(place: Place, url: string, proxy?: string): Promise<number> {
  const through = proxy === undefined ? [] : ['--proxy', proxy];
  const { stdout } = await run('curl', ['-sS', '--fail', '-o', '/dev/null', '-w', '%{time_total}', ...through, url], {
    place,
  });
  return Number(stdout);
}
