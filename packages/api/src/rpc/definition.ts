import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import type { GenService, GenServiceMethods } from '@bufbuild/protobuf/codegenv2';
import type { MethodDefinition } from '@grpc/grpc-js';

/** A service as the generated code describes it. */
export type Service = GenService<GenServiceMethods>;
/** The methods of a service by their names in lower camel case. */
export type MethodsOf<S extends Service> = S['method'];
export type MethodDescription = Pick<DescMethod, 'input' | 'output' | 'methodKind'>;

/** A received message. */
export type Received<D extends DescMessage> = MessageShape<D>;
/** A message to send: a complete one or an object literal with some of its fields. */
export type Sent<D extends DescMessage> = MessageInitShape<D>;

/** Messages without their types, as they pass through grpc-js. */
export type AnyMessage = MessageShape<DescMessage>;
export type AnyInit = MessageInitShape<DescMessage>;

function serializer(schema: DescMessage): (message: AnyInit) => Buffer {
  return (message) => {
    const bytes = toBinary(schema, create(schema, message));
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
}

/** A method as grpc-js wants it: its path, its kind, and how its messages become bytes. */
export function definitionOf(method: DescMethod): MethodDefinition<AnyInit, AnyInit> {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
    responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
    requestSerialize: serializer(method.input),
    requestDeserialize: (bytes) => fromBinary(method.input, bytes),
    responseSerialize: serializer(method.output),
    responseDeserialize: (bytes) => fromBinary(method.output, bytes),
  };
}
