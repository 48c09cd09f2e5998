/** `onnx-fuse env` */
import { sizeText } from '../../api/basics/byte-size.js';
import { type Environment, environment, type Presence } from '../../api/verify/environment.js';
import { table } from '../text/table.js';
import type { Outcome } from './results.js';

export async function envCommand(): Promise<Outcome> {
  return { kind: 'environment', result: await environment(), render: renderEnvironment };
}

function renderEnvironment({ versions, system, cpu, memory, runtimes, providers }: Environment): string {
  const shown = ({ available, version, reason }: Presence): string =>
    available ? (version ?? 'available') : (reason ?? 'not available');
  return table(
    [],
    [
      ['onnx-fuse', versions['onnx-fuse']],
      ['Node', versions.node],
      ...runtimes.map((each) => [each.name, shown(each)]),
      ['system', `${system.type} ${system.release}, ${system.arch}`],
      ['processor', `${cpu.count} x ${cpu.model}`],
      ['memory', `${sizeText(memory.total)}, of which ${sizeText(memory.available)} are free`],
      ...providers.map((each) => [`provider ${each.name}`, shown(each)]),
    ],
  );
}
