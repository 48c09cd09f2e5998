/**
 * onnx.proto of IR version 14, as a protobufjs descriptor. proto2-faithful: repeated scalars are unpacked, except the
 * *_data fields of TensorProto, which onnx.proto declares packed. Enum fields are int32, so that values newer than this
 * schema survive.
 */

interface Field {
  readonly type: string;
  readonly id: number;
  readonly rule?: 'repeated';
  readonly options?: { readonly packed: true };
}
interface MessageDescriptor {
  readonly fields: Readonly<Record<string, Field>>;
  readonly oneofs?: Readonly<Record<string, { readonly oneof: readonly string[] }>>;
  readonly nested?: Readonly<Record<string, MessageDescriptor>>;
}

const one = (id: number, type: string): Field => ({ type, id });
const many = (id: number, type: string): Field => ({ type, id, rule: 'repeated' });
const packed = (id: number, type: string): Field => ({ type, id, rule: 'repeated', options: { packed: true } });

const messages: Readonly<Record<string, MessageDescriptor>> = {
  AttributeProto: {
    fields: {
      name: one(1, 'string'),
      f: one(2, 'float'),
      i: one(3, 'int64'),
      s: one(4, 'bytes'),
      t: one(5, 'TensorProto'),
      g: one(6, 'GraphProto'),
      floats: many(7, 'float'),
      ints: many(8, 'int64'),
      strings: many(9, 'bytes'),
      tensors: many(10, 'TensorProto'),
      graphs: many(11, 'GraphProto'),
      docString: one(13, 'string'),
      tp: one(14, 'TypeProto'),
      typeProtos: many(15, 'TypeProto'),
      type: one(20, 'int32'),
      refAttrName: one(21, 'string'),
      sparseTensor: one(22, 'SparseTensorProto'),
      sparseTensors: many(23, 'SparseTensorProto'),
    },
  },
  ValueInfoProto: {
    fields: {
      name: one(1, 'string'),
      type: one(2, 'TypeProto'),
      docString: one(3, 'string'),
      metadataProps: many(4, 'StringStringEntryProto'),
    },
  },
  NodeProto: {
    fields: {
      input: many(1, 'string'),
      output: many(2, 'string'),
      name: one(3, 'string'),
      opType: one(4, 'string'),
      attribute: many(5, 'AttributeProto'),
      docString: one(6, 'string'),
      domain: one(7, 'string'),
      overload: one(8, 'string'),
      metadataProps: many(9, 'StringStringEntryProto'),
      deviceConfigurations: many(10, 'NodeDeviceConfigurationProto'),
    },
  },
  IntIntListEntryProto: { fields: { key: one(1, 'int64'), value: many(2, 'int64') } },
  NodeDeviceConfigurationProto: {
    fields: {
      configurationId: one(1, 'string'),
      shardingSpec: many(2, 'ShardingSpecProto'),
      pipelineStage: one(3, 'int32'),
    },
  },
  ShardingSpecProto: {
    fields: {
      tensorName: one(1, 'string'),
      device: many(2, 'int64'),
      indexToDeviceGroupMap: many(3, 'IntIntListEntryProto'),
      shardedDim: many(4, 'ShardedDimProto'),
    },
  },
  ShardedDimProto: { fields: { axis: one(1, 'int64'), simpleSharding: many(2, 'SimpleShardedDimProto') } },
  SimpleShardedDimProto: {
    fields: { dimValue: one(1, 'int64'), dimParam: one(2, 'string'), numShards: one(3, 'int64') },
    oneofs: { dim: { oneof: ['dimValue', 'dimParam'] } },
  },
  TrainingInfoProto: {
    fields: {
      initialization: one(1, 'GraphProto'),
      algorithm: one(2, 'GraphProto'),
      initializationBinding: many(3, 'StringStringEntryProto'),
      updateBinding: many(4, 'StringStringEntryProto'),
    },
  },
  ModelProto: {
    fields: {
      irVersion: one(1, 'int64'),
      producerName: one(2, 'string'),
      producerVersion: one(3, 'string'),
      domain: one(4, 'string'),
      modelVersion: one(5, 'int64'),
      docString: one(6, 'string'),
      graph: one(7, 'GraphProto'),
      opsetImport: many(8, 'OperatorSetIdProto'),
      metadataProps: many(14, 'StringStringEntryProto'),
      trainingInfo: many(20, 'TrainingInfoProto'),
      functions: many(25, 'FunctionProto'),
      configuration: many(26, 'DeviceConfigurationProto'),
    },
  },
  DeviceConfigurationProto: {
    fields: { name: one(1, 'string'), numDevices: one(2, 'int32'), device: many(3, 'string') },
  },
  StringStringEntryProto: { fields: { key: one(1, 'string'), value: one(2, 'string') } },
  TensorAnnotation: {
    fields: { tensorName: one(1, 'string'), quantParameterTensorNames: many(2, 'StringStringEntryProto') },
  },
  GraphProto: {
    fields: {
      node: many(1, 'NodeProto'),
      name: one(2, 'string'),
      initializer: many(5, 'TensorProto'),
      docString: one(10, 'string'),
      input: many(11, 'ValueInfoProto'),
      output: many(12, 'ValueInfoProto'),
      valueInfo: many(13, 'ValueInfoProto'),
      quantizationAnnotation: many(14, 'TensorAnnotation'),
      sparseInitializer: many(15, 'SparseTensorProto'),
      metadataProps: many(16, 'StringStringEntryProto'),
    },
  },
  TensorProto: {
    fields: {
      dims: many(1, 'int64'),
      dataType: one(2, 'int32'),
      segment: one(3, 'Segment'),
      floatData: packed(4, 'float'),
      int32Data: packed(5, 'int32'),
      stringData: many(6, 'bytes'),
      int64Data: packed(7, 'int64'),
      name: one(8, 'string'),
      rawData: one(9, 'bytes'),
      doubleData: packed(10, 'double'),
      uint64Data: packed(11, 'uint64'),
      docString: one(12, 'string'),
      externalData: many(13, 'StringStringEntryProto'),
      dataLocation: one(14, 'int32'),
      metadataProps: many(16, 'StringStringEntryProto'),
    },
    nested: { Segment: { fields: { begin: one(1, 'int64'), end: one(2, 'int64') } } },
  },
  SparseTensorProto: {
    fields: { values: one(1, 'TensorProto'), indices: one(2, 'TensorProto'), dims: many(3, 'int64') },
  },
  TensorShapeProto: {
    fields: { dim: many(1, 'Dimension') },
    nested: {
      Dimension: {
        fields: { dimValue: one(1, 'int64'), dimParam: one(2, 'string'), denotation: one(3, 'string') },
        oneofs: { value: { oneof: ['dimValue', 'dimParam'] } },
      },
    },
  },
  TypeProto: {
    fields: {
      tensorType: one(1, 'Tensor'),
      sequenceType: one(4, 'Sequence'),
      mapType: one(5, 'Map'),
      denotation: one(6, 'string'),
      opaqueType: one(7, 'Opaque'),
      sparseTensorType: one(8, 'SparseTensor'),
      optionalType: one(9, 'Optional'),
    },
    oneofs: {
      value: {
        oneof: ['tensorType', 'sequenceType', 'mapType', 'opaqueType', 'sparseTensorType', 'optionalType'],
      },
    },
    nested: {
      Tensor: { fields: { elemType: one(1, 'int32'), shape: one(2, 'TensorShapeProto') } },
      Sequence: { fields: { elemType: one(1, 'TypeProto') } },
      Map: { fields: { keyType: one(1, 'int32'), valueType: one(2, 'TypeProto') } },
      Optional: { fields: { elemType: one(1, 'TypeProto') } },
      SparseTensor: { fields: { elemType: one(1, 'int32'), shape: one(2, 'TensorShapeProto') } },
      Opaque: { fields: { domain: one(1, 'string'), name: one(2, 'string') } },
    },
  },
  OperatorSetIdProto: { fields: { domain: one(1, 'string'), version: one(2, 'int64') } },
  FunctionProto: {
    fields: {
      name: one(1, 'string'),
      input: many(4, 'string'),
      output: many(5, 'string'),
      attribute: many(6, 'string'),
      node: many(7, 'NodeProto'),
      docString: one(8, 'string'),
      opsetImport: many(9, 'OperatorSetIdProto'),
      domain: one(10, 'string'),
      attributeProto: many(11, 'AttributeProto'),
      valueInfo: many(12, 'ValueInfoProto'),
      overload: one(13, 'string'),
      metadataProps: many(14, 'StringStringEntryProto'),
    },
  },
};

/** protobufjs takes every type read from JSON for proto3 (no presence, all packed) unless the type itself says proto2. */
function asProto2({ nested, ...descriptor }: MessageDescriptor): object {
  return { edition: 'proto2', ...descriptor, ...(nested ? { nested: allProto2(nested) } : {}) };
}
function allProto2(types: Readonly<Record<string, MessageDescriptor>>): object {
  return Object.fromEntries(Object.entries(types).map(([name, type]) => [name, asProto2(type)]));
}

/** The whole schema, for protobufjs' `Root.fromJSON`. */
export const descriptor = { nested: { onnx: { edition: 'proto2', nested: allProto2(messages) } } };
