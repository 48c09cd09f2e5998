/** Under which heading help shows a flag. */

/** The headings, in the order of most commands. */
export type FlagGroup =
  | 'Budget'
  | 'Layers'
  | 'Fusing'
  | 'Text and quality'
  | 'Speed'
  | 'Cutting'
  | 'Running'
  | 'Output'
  | 'General';

/** These flags, under a heading. */
export function grouped<
  const G extends FlagGroup,
  const F extends Readonly<Record<string, { readonly describe: string }>>,
>(group: G, flags: F): { readonly [Name in keyof F]: F[Name] & { readonly group: G } } {
  const entries = Object.entries(flags).map(([name, flag]) => [name, { ...flag, group }]);
  return Object.fromEntries(entries) as { readonly [Name in keyof F]: F[Name] & { readonly group: G } };
}
