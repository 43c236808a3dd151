import { dockerConfigCredentials, type ImageAccess } from '@pantala/oci';

/** How registries are talked to. */
export interface AccessOptions {
  readonly plainHttp?: boolean;
  readonly insecure?: boolean;
}

/** Credentials are those of `docker login`. */
export function accessOf({ plainHttp, insecure }: AccessOptions, signal?: AbortSignal): ImageAccess {
  return {
    credentials: dockerConfigCredentials(),
    plainHttp: plainHttp ?? false,
    insecure: insecure ?? false,
    ...(signal === undefined ? {} : { signal }),
  };
}
