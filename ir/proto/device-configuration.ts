/**
 * Multi-device annotations of ONNX IR 11 (onnx.proto3: DeviceConfigurationProto, NodeDeviceConfigurationProto): hints of
 * how tensors may be sharded, which runtimes are free to ignore. The core has no room for them; they are carried.
 */
import type { Model, Node } from '../core.js';
import { carry, type Original, originalOf } from './carried.js';
import { toLong } from './messages.js';

/** The first IR version that has device configurations. */
export const DEVICE_IR_VERSION = 11;

/** How one operand or result of a node is sharded. */
export interface ShardingSpec {
  /** Name of the operand or result. */
  readonly tensor: string;
  readonly axis: number;
  /** Shards along the axis, evenly many per device or group. */
  readonly shards: number;
  /** Device of each shard; more than one where several hold the same. */
  readonly devices: readonly (readonly number[])[];
}

/** Declares devices under a name, in place of an earlier declaration of that name. */
export function declareDeviceConfiguration(model: Model, name: string, devices: readonly string[]): void {
  const old = originalOf<Original<'ModelProto'>>(model.carried);
  const others = (old?.message.configuration ?? []).filter((each) => each.name !== name);
  const message = {
    ...old?.message,
    configuration: [...others, { name, numDevices: devices.length, device: [...devices] }],
  };
  model.carried = carry({ ranges: [], shape: null, ...old, message });
  model.irVersion = Math.max(model.irVersion, DEVICE_IR_VERSION);
}

/** Says how tensors of a node are sharded over the devices declared as `name`, in place of earlier annotations. */
export function annotateNode(node: Node, name: string, specs: readonly ShardingSpec[]): void {
  const old = originalOf<Original<'NodeProto'>>(node.carried);
  const others = (old?.message.deviceConfigurations ?? []).filter((each) => each.configurationId !== name);
  const shardingSpec = specs.map(({ tensor, axis, shards, devices }) => {
    const isGrouped = devices.some((group) => group.length > 1);
    // Ids of groups, beside those of devices.
    const count = devices.flat().length;
    const group = (i: number): number => count + i;
    return {
      tensorName: tensor,
      device: devices.map((own, i) => toLong(isGrouped ? group(i) : (own[0] ?? 0))),
      indexToDeviceGroupMap: isGrouped
        ? devices.map((own, i) => ({ key: toLong(group(i)), value: own.map(toLong) }))
        : [],
      shardedDim: [{ axis: toLong(axis), simpleSharding: [{ numShards: toLong(shards) }] }],
    };
  });
  const message = { ...old?.message, deviceConfigurations: [...others, { configurationId: name, shardingSpec }] };
  node.carried = carry({ ranges: [], shape: null, ...old, message });
  node.graph.touch();
}

/** The annotations of a node: configuration, and what is sharded how. */
export function annotationsOf(node: Node): { readonly name: string; readonly tensors: readonly string[] }[] {
  const message = originalOf<Original<'NodeProto'>>(node.carried)?.message;
  return (message?.deviceConfigurations ?? []).map(({ configurationId, shardingSpec }) => ({
    name: configurationId ?? '',
    tensors: (shardingSpec ?? []).map(({ tensorName }) => tensorName ?? ''),
  }));
}
