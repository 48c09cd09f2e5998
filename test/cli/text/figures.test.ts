/** Figures as people read them. */
import * as assert from 'uvu/assert';
import { cautions, growth, percent, secondsText } from '../../../cli/text/figures.js';
import { renderPlan } from '../../../cli/text/plan.js';
import { planExample } from '../../helpers/plan-example.js';
import { suite } from '../../helpers/suite.js';

const test = suite('figures');

test('shares and times', () => {
  assert.equal([0.8834, -0.022, -0.0004, 0].map(percent), ['88.3 %', '-2.2 %', '0.0 %', '0.0 %']);
  assert.equal([0.007, -0.022, -0.0004].map(growth), ['+0.7 %', '-2.2 %', '+0.0 %']);
  assert.equal([0.00125, 0.00031].map(secondsText), ['1.25 ms', '310 us']);
});

test('figures of little text come with a word of caution', () => {
  assert.match(cautions(231).join(), /231 positions only/);
  assert.equal(cautions(7968), []);
});

test('a plan says why a better one was passed over, and one that changes nothing is not to be applied', () => {
  const plan = planExample();
  const [nothing, , better] = plan.front;
  const check = { ...plan.chosen.check, kl: 0.0612 };
  const passedOver = [{ ...(better as NonNullable<typeof better>), predictedSpeedup: 1.3, check }];
  const text = renderPlan({ ...plan, passedOver }, 'plan.json');
  assert.match(
    text,
    /^passed over, .*\n {2}1\.300 times as fast: KL 0\.0330 where .* searched on, 0\.0612 where it was checked$/m,
  );
  assert.match(text, /apply it with: onnx-fuse example\.onnx out\.onnx --plan plan\.json$/);
  const chosen = { ...plan.chosen, ...(nothing as NonNullable<typeof nothing>) };
  const failed = renderPlan({ ...plan, chosen, objective: { kind: 'best', speedup: 9 } }, 'plan.json');
  assert.match(failed, /^no plan that was measured is as fast as was asked for and within the budget$/m);
  assert.match(failed, /^written to plan\.json, which changes nothing$/m);
});

test.run();
