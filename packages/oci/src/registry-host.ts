/** The name that references use for Docker Hub, and the host that serves its registry API. */
export const DOCKER_HUB = 'docker.io';
const DOCKER_HUB_REGISTRY = 'registry-1.docker.io';

/** The host (and port) that serves the registry API for a reference's domain: itself, but for Docker Hub. */
export function registryHost(domain: string): string {
  return domain === DOCKER_HUB || domain === 'index.docker.io' ? DOCKER_HUB_REGISTRY : domain;
}
