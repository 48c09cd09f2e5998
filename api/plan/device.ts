/** Hardware to predict for, by name or from a file. */
import { readFileSync } from 'node:fs';
import { errors, reasonOf } from '../../ir/index.js';
import { DEVICE_NAMES, type Device, namedDevice, parseDevice } from '../../runtime/index.js';

/** The device of this name, or the one that a file describes. @throws Diagnostic OF_USAGE, OF_READ. */
export function deviceOf(device: string): Device {
  if (DEVICE_NAMES.includes(device)) return namedDevice(device);
  let text: string;
  try {
    text = readFileSync(device, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return namedDevice(device);
    throw errors.readFailed(device, reasonOf(error));
  }
  return parseDevice(text, device);
}
