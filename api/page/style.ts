/** How a page looks: quiet, in both colour schemes, on wide and on narrow screens. Nothing is loaded. */
import { Markup } from './markup.js';

/** Steps of the heat map: half an octave each. */
export const HEAT_STEPS = 16;

/** From next to the background to far from it, without a hue: colours mean kinds of parts. */
const LIGHT_HEAT = ['#f3f3ef', '#d3d3ce', '#9c9d99', '#5c5e5e', '#17191b'];
const DARK_HEAT = ['#1e2125', '#3c4045', '#6c7075', '#aaaca9', '#f4f3ee'];

/** A ramp through `stops`, in as many steps as the heat map has. */
function ramp(stops: readonly string[]): string {
  const channel = (color: string, at: number): number => Number.parseInt(color.slice(1 + 2 * at, 3 + 2 * at), 16);
  return Array.from({ length: HEAT_STEPS }, (_, i) => {
    const place = (i / (HEAT_STEPS - 1)) * (stops.length - 1);
    const index = Math.min(Math.floor(place), stops.length - 2);
    const [from, to] = [stops[index] as string, stops[index + 1] as string];
    const mixed = [0, 1, 2].map((at) =>
      Math.round(channel(from, at) + (place - index) * (channel(to, at) - channel(from, at))),
    );
    return `.h${i}{fill:rgb(${mixed})}`;
  }).join('');
}

const CSS = `
:root{color-scheme:light dark;--paper:#fdfdfa;--ink:#1c1e21;--quiet:#5c6166;--rule:#dcdcd5;--faint:#b9bbb7;
--attention:#5d83a6;--ffn:#b9924f;--fused:#93691f;--mapped:#4d8a5b;--on-fused:#fffdf6;--chosen:#7a3ea8;--limit:#b33c1d}
@media (prefers-color-scheme:dark){:root{--paper:#14161a;--ink:#e7e5df;--quiet:#a3a6aa;--rule:#33373c;--faint:#5a5f65;
--attention:#7ea4c8;--ffn:#ab8a53;--fused:#dcb46c;--mapped:#84c592;--on-fused:#17140c;--chosen:#cda6f0;--limit:#f2895f}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0 auto;max-width:1144px;padding:40px 16px 64px;background:var(--paper);color:var(--ink);
font:17px/1.5 "Iowan Old Style","Palatino Linotype",Palatino,"Book Antiqua",Georgia,serif}
h1,h2,h3{font-weight:normal;line-height:1.2;overflow-wrap:anywhere}
h1{font-size:30px;margin:0 0 12px}
h2{font-size:22px;margin:56px 0 8px;padding-top:12px;border-top:1px solid var(--rule)}
h3{font-size:17px;font-style:italic;margin:28px 0 4px}
p{max-width:68ch;margin:8px 0}
p,li,dd,dt,figcaption{overflow-wrap:anywhere}
.kicker,.note,.absent,figcaption,summary{color:var(--quiet)}
.kicker{margin:0 0 4px;font-size:15px}
.note,figcaption,summary,.absent{font-size:15px;line-height:1.45}
.absent{font-style:italic}dd>.absent{margin:0}
.words{font-size:20px;line-height:1.4;max-width:60ch}
.chosen{color:var(--chosen)}.over{color:var(--limit)}
dl.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:20px 28px;margin:28px 0}
dl.facts div{border-top:2px solid var(--ink);padding-top:6px}
dl.facts dt{font-size:15px;line-height:1.3;color:var(--quiet)}
dl.facts dd{margin:0}
dl.facts dd.value{font-size:27px;line-height:1.3;font-variant-numeric:lining-nums tabular-nums}
dl.facts dd.more{font-size:15px;line-height:1.4;color:var(--quiet)}
dl.plain{display:grid;grid-template-columns:minmax(96px,max-content) 1fr;gap:4px 20px;font-size:15px;margin:12px 0}
dl.plain dt{color:var(--quiet)}dl.plain dd{margin:0;max-width:68ch}
.command{margin:20px 0}
.command code{display:block;padding:8px 12px;border:1px solid var(--rule);border-left:3px solid var(--ink);white-space:pre-wrap;overflow-x:auto;
font:14px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;-webkit-user-select:all;user-select:all;cursor:text}.command span{white-space:pre}
figure{margin:20px 0;min-width:0}
figcaption{max-width:68ch;margin:6px 0 0}
.row{display:flex;flex-wrap:wrap;align-items:flex-end;gap:0 8px}
.row figure{margin:16px 0 0}
.beside{display:flex;flex-wrap:wrap;align-items:flex-start;gap:8px 40px}.beside .picture{flex:0 1 auto;min-width:0}
.beside>:last-child{flex:1 1 280px;min-width:0;margin-top:20px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:0 48px}
.picture,.table{max-width:100%;overflow-x:auto}
svg{display:block;width:100%;height:auto;font:11.5px/1 system-ui,-apple-system,"Segoe UI","Helvetica Neue",Arial,sans-serif;
font-variant-numeric:tabular-nums}
svg text{fill:var(--quiet)}
svg .strong{fill:var(--ink)}svg .marked{fill:var(--chosen)}svg .over{fill:var(--limit)}
svg .marked,svg .over{paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
.end{text-anchor:end}.middle{text-anchor:middle}
.axis{stroke:var(--faint);fill:none;stroke-width:1}.grid{stroke:var(--rule);fill:none;stroke-width:1}
.attention{fill:var(--attention)}.ffn{fill:var(--ffn)}.mapped{fill:var(--mapped)}.fused{fill:var(--fused);shape-rendering:crispEdges}.heat{shape-rendering:crispEdges}
svg text.on-fused{fill:var(--on-fused)}
.gone{fill:none;stroke:var(--faint);stroke-width:1;stroke-dasharray:2 2}
.bar,.other{fill:var(--faint)}.bar-marked{fill:var(--chosen)}
.dot{fill:var(--faint);fill-opacity:.75}.dot-front{fill:var(--ink)}.dot-chosen{fill:var(--chosen)}
.line{fill:none;stroke-width:1.5;stroke-linejoin:round}
.line-ink{stroke:var(--ink)}.line-pale{stroke:var(--faint)}.line-dotted{stroke-dasharray:1.5 3;stroke-linecap:round}
.line-chosen{stroke:var(--chosen)}.line-fused{stroke:var(--fused);stroke-width:2}
.limit{stroke:var(--limit);stroke-width:1;stroke-dasharray:5 3}
.tick{stroke:var(--quiet);stroke-width:1}
.bracket{fill:none;stroke:var(--ink);stroke-width:1.5}
.key{display:inline-block;width:12px;height:12px;margin:0 5px 0 0;vertical-align:-1px}
.key.attention{background:var(--attention)}.key.ffn{background:var(--ffn)}.key.fused{background:var(--fused)}.key.mapped{background:var(--mapped)}
.key.gone{border:1px dashed var(--faint)}.key.other{background:var(--faint)}
.keys span{margin-right:16px;white-space:nowrap}
table{border-collapse:collapse;font-size:15px;line-height:1.35;margin:12px 0;font-variant-numeric:lining-nums tabular-nums}
th,td{padding:3px 18px 3px 0;vertical-align:top;text-align:left}
th{font-weight:normal;color:var(--quiet);vertical-align:bottom;border-bottom:1px solid var(--rule)}
th.figure,td.figure{text-align:right}td.figure{white-space:nowrap}
td.word{min-width:3em;max-width:30em;overflow-wrap:break-word}td.word:first-child{min-width:4.6em}
tr>:last-child{padding-right:0}
details{margin:8px 0}summary{cursor:pointer}
details .table{max-height:420px;overflow:auto}
.matrix td,.matrix th{padding:1px 6px;font-size:12px;min-width:0}
td svg{display:inline-block;width:120px;height:12px;vertical-align:-1px}.wide td svg{width:300px}
.sample{margin:20px 0;border-left:2px solid var(--rule);padding-left:14px}
.sample .both{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:8px 32px}
.sample blockquote{margin:0;white-space:pre-wrap;overflow-wrap:anywhere}
.sample .same{color:var(--quiet)}
${ramp(LIGHT_HEAT)}
@media (prefers-color-scheme:dark){${ramp(DARK_HEAT)}}
@media (max-width:600px){body{padding-top:24px}h1{font-size:25px}.words{font-size:18px}h2{margin-top:40px}
dl.facts,dl.plain{grid-template-columns:minmax(0,1fr)}dl.facts{gap:12px}dl.plain dd{margin-bottom:8px}
th,td{padding-right:12px}td svg{width:44px}.wide td svg{width:84px}.beside>:last-child{margin-top:0}}
@media print{body{max-width:none}details .table{max-height:none}}
`;

/** The style sheet. It holds neither < nor &. */
export const STYLE = new Markup(CSS);
