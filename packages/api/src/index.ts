export { create, fromBinary, toBinary } from '@bufbuild/protobuf';
export {
  type Duration,
  durationFromMs,
  durationMs,
  type Timestamp,
  timestampFromMs,
  timestampMs,
} from '@bufbuild/protobuf/wkt';
export * as commonV2 from './gen/common/v2/common_pb.ts';
export * as dfdaemonV2 from './gen/dfdaemon/v2/dfdaemon_pb.ts';
export * as errordetailsV2 from './gen/errordetails/v2/errordetails_pb.ts';
export * as healthV1 from './gen/grpc/health/v1/health_pb.ts';
export * as managerV2 from './gen/manager/v2/manager_pb.ts';
export * as pantalaV1 from './gen/pantala/v1/pantala_pb.ts';
export * as schedulerV2 from './gen/scheduler/v2/scheduler_pb.ts';
export * from './rpc/index.ts';
