/** Arguments of a measurement, by the specification that commands have, too. */
import { helpOf } from '../../cli/options/help.js';
import { parseArguments } from '../../cli/options/parse.js';
import type { ArgumentsOf, CommandSpec } from '../../cli/options/spec.js';

/** What this process was given. Ends it after help. Throws OF_USAGE. */
export function argumentsFor<S extends CommandSpec>(spec: S): ArgumentsOf<S> {
  const parsed = parseArguments(spec, process.argv.slice(2));
  if (parsed.kind === 'run') return parsed.values;
  console.log(helpOf(spec, []));
  process.exit();
}
