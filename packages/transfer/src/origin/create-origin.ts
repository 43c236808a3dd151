import { type ByteRange, type Metrics, type RateLimiter, TokenBucket, unlimited } from '@pantala/base';
import { AddressGuard } from './address-guard.ts';
import { Connector } from './connector.ts';
import type { Origin, OriginBeginning, OriginBody, OriginRequest, OriginStat } from './contract.ts';
import { DirectAccess } from './direct.ts';
import { HttpClient } from './http-client.ts';
import { HttpOrigin } from './http-origin.ts';
import { originMetrics } from './metrics.ts';
import { compileOriginOptions, type OriginOptions } from './options.ts';
import { OriginSchemes } from './schemes.ts';
import { parseTarget } from './target.ts';

/** Every way out of this program: origins by scheme, and requests that are passed through. */
export interface OriginAccess extends Origin {
  readonly direct: DirectAccess;
}

/** @throws `invalid-argument` for rules of addresses or patterns that cannot be understood */
export function createOrigin(options: OriginOptions, deps: { readonly metrics: Metrics }): OriginAccess {
  const compiled = compileOriginOptions(options);
  const connector = new Connector(new AddressGuard(compiled.addresses), compiled);
  const client = new HttpClient(connector, compiled, originMetrics(deps.metrics));
  const http = new HttpOrigin(client, compiled, limiterOf(compiled.rate, compiled.limiter ?? unlimited));
  const schemes = new OriginSchemes({ http, https: http });
  const originOf = (request: OriginRequest): Origin => schemes.of(parseTarget(request.url));
  return {
    direct: new DirectAccess(client, connector),
    stat: async (request): Promise<OriginStat> => await originOf(request).stat(request),
    begin: async (request: OriginRequest & { readonly range?: ByteRange }): Promise<OriginBeginning> =>
      await originOf(request).begin(request),
    fetch: async (request: OriginRequest & { readonly range?: ByteRange }): Promise<OriginBody> =>
      await originOf(request).fetch(request),
    [Symbol.asyncDispose]: () => http[Symbol.asyncDispose](),
  };
}

function limiterOf(rate: number, parent: RateLimiter): RateLimiter {
  return Number.isFinite(rate) ? new TokenBucket({ rate, parent }) : parent;
}
