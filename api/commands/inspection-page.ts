/** The page of `inspect`: what a model consists of, on one HTML page. */
import { type Model, openHeader } from '../../ir/index.js';
import { checkOptions } from '../basics/options.js';
import { writeWhole } from '../basics/small-file.js';
import { checkTarget } from '../basics/targets.js';
import { modelFile } from '../folder/model-folder.js';
import { inspectModel } from '../inspect/inspect.js';
import { inspectionPageOf } from '../inspect/page.js';
import { weightShares } from '../inspect/weights.js';

/** What a page about a model shows. */
export interface InspectionPageRequest {
  /** The model: an .onnx file, a folder with one, or a model as `open` gives it. */
  readonly model: string | Model;
  /** How a reason, which names options as `option keep-last`, is worded; as it is by default. */
  readonly worded?: ((reason: string) => string) | undefined;
  /** A command line that the page shows as the next one, to be copied; none by default. */
  readonly next?: string | undefined;
  /** Where the page is written; it is only returned by default. */
  readonly output?: string | undefined;
}

/**
 * Draws what `inspect` finds, and where the bytes of the weights are, on one HTML page without script, and returns its text:
 * what `onnx-fuse inspect` does for its page.
 *
 * @throws Diagnostic as `open` does, OF_OUTPUT_IS_INPUT, OF_WRITE
 */
export async function inspectionPage(request: InspectionPageRequest): Promise<string> {
  checkOptions('InspectionPageRequest', request);
  const { model: given, worded = (reason) => reason, next, output } = request;
  const path = typeof given === 'string' ? modelFile(given) : null;
  checkTarget(output, typeof given === 'string' ? [given, path ?? undefined] : []);
  const model = typeof given === 'string' ? openHeader(path as string) : given;
  const page = inspectionPageOf(inspectModel(model, path ?? 'model'), weightShares(model), { worded, next });
  if (output !== undefined) await writeWhole(output, page);
  return page;
}
