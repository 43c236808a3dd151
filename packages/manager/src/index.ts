export { type Manager, type ManagerDependencies, startManager } from './manager.ts';
export {
  type CompiledManagerOptions,
  compileManagerOptions,
  type ListenAddress,
  type ManagerOptions,
} from './options.ts';
