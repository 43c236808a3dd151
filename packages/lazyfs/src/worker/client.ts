/** What a command needs to have a worker do something: it starts in a fraction of the time that everything takes. */
export type { DriverName } from '../driver.ts';
export type { MountState } from '../mounting/mount.ts';
export type { MountOrder, NamedImage, OrderedSource } from '../mounting/mount-order.ts';
export type { MountRequest, SourceSettings } from '../mounting/mount-request.ts';
export { ControlClient } from './control-client.ts';
export {
  DEFAULT_CACHE_DIRECTORY,
  DEFAULT_GUARDIAN_SOCKET,
  DEFAULT_STATE_DIRECTORY,
  type Places,
  placesOf,
} from './places.ts';
export { callWorker, replaceWorker } from './start-worker.ts';
export type { MountAnswer, MountLine } from './worker.ts';
