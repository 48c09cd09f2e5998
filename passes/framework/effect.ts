/** What steps promise about the function that a model computes. */
import type { Effect, OptionSpec } from './pass.js';
import { optionsOf, type Step } from './pipeline.js';

/** From the strongest promise to the weakest. */
export const EFFECTS = ['exact', 'reassociates', 'changes-function'] as const satisfies readonly Effect[];

/** What a step promises: that of its pass, or less where an option that is not its fallback promises less. */
export function effectOf(step: Step): Effect {
  const specs = step.pass.options as unknown as Readonly<Record<string, OptionSpec<unknown>>>;
  const values = optionsOf(step);
  const given = Object.entries(specs).filter(([name, spec]) => spec.print(values[name]) !== spec.print(spec.fallback));
  const effects = [step.pass.effect, ...given.map(([, { effect }]) => effect ?? 'exact')];
  return EFFECTS[Math.max(...effects.map((effect) => EFFECTS.indexOf(effect)))] as Effect;
}

/**
 * The reference that the algebra is checked against: the same pipeline with only the steps that change the function,
 * so that what remains to be shown equal is exactly what claims to be exact.
 */
export function referenceSteps(steps: readonly Step[]): Step[] {
  return steps.filter((step) => effectOf(step) === 'changes-function' || step.pass.isPreparation);
}
