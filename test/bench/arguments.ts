/** Arguments of a measurement, by the specification that commands have, too. */
import { helpOf } from '../../cli/options/help.js';
import { parseArguments } from '../../cli/options/parse.js';
import type { ArgumentsOf, CommandSpec } from '../../cli/options/spec.js';

/** What this process was given. Ends it after help. Throws OF_USAGE. */
export async function argumentsFor<S extends CommandSpec>(spec: S): Promise<ArgumentsOf<S>> {
  const argv = process.argv.slice(2);
  if (!argv.includes('--help')) return parseArguments(spec, argv);
  console.log(await helpOf(spec, []));
  process.exit();
}
