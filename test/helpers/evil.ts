/** A name as nobody means well with. */

/** Clears the screen, sets a title, starts a line of its own, turns the direction of writing, hides, ends in a surrogate. */
export const EVIL = '\u001b[2J\u001b]0;x\u0007\r\nfake: all is well\u202egnp.exe\u2066\u200b\u009b31m\u{e0041}\ud800';
