/** Hardware to predict for, by name or from a file. */
import { errors } from '../../ir/index.js';
import { DEVICE_NAMES, type Device, namedDevice, parseDevice } from '../../runtime/choose/cost.js';
import { readText } from '../basics/small-file.js';
import type { PlanFile } from './plan-file.js';

/** The device of this name, or the one that a file describes. @throws Diagnostic OF_USAGE, OF_READ. */
export function deviceOf(device: string): Device {
  if (DEVICE_NAMES.includes(device)) return namedDevice(device);
  let text: string;
  try {
    text = readText(device, (place, why) =>
      errors.usage(place, why, 'give a JSON file with the constants of a device'),
    );
  } catch (error) {
    if (errors.noSuchFile.is(error)) return namedDevice(device);
    throw error;
  }
  return parseDevice(text, device);
}

/** The device that a plan was made for; undefined where its evidence is damaged: the plan is good without. */
export function plannedDevice({ cost }: Pick<PlanFile, 'cost'>): Device | undefined {
  try {
    return parseDevice(JSON.stringify(cost) ?? '', 'the plan');
  } catch (error) {
    if (errors.usage.is(error)) return undefined;
    throw error;
  }
}
