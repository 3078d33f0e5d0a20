// What one model says of one picture: waiting, an answer, or a problem.

import { inTurn } from "./ask.js";
import { element } from "./element.js";
import { bars, stack } from "./plots.js";
import { classify, STAGES } from "./question.js";

/** Ask the model, and show in the node how that goes. Return the answer, or the problem as {error}. */
export async function askInto(node, file, model, signal) {
  const state = element("p", { text: "waiting", className: "state" });
  node.replaceChildren(element("h4", { text: model.name }), state);
  const work = () => {
    state.textContent = "classifying …";
    return classify(file, model, signal);
  };
  try {
    const answer = await inTurn(work, (seconds) => countDown(state, seconds, signal));
    state.replaceWith(...answered(answer, model));
    return answer;
  } catch (problem) {
    if (problem.name === "AbortError") return null;
    const words = [element("strong", { text: problem.title }), element("br"), problem.detail];
    state.replaceWith(element("p", { className: "problem" }, ...words));
    return { error: problem.message };
  }
}

function answered(answer, model) {
  const where = `version ${answer.version}, ${answer.precision} on ${model.provider}, in a batch of ${answer.batch_size}`;
  const rows = answer.predictions.map(({ label, probability }) => ({
    label,
    share: probability,
    value: `${(100 * probability).toFixed(1)} %`,
  }));
  const parts = STAGES.map((name) => ({ name, value: answer.stages[name] }));
  const shown = [element("p", { text: where, className: "where" }), bars(rows), stack(parts, "ms")];
  return answer.trained ? shown : [untrained(), ...shown];
}

/** Return the mark of a model whose labels mean nothing. */
export function untrained() {
  return element("p", { text: "Random weights: the labels mean nothing.", className: "untrained" });
}

async function countDown(state, seconds, signal) {
  for (let left = seconds; left > 0; left -= 1) {
    state.textContent = `The server is busy. The page asks again in ${left} s.`;
    await new Promise((pass) => setTimeout(pass, 1000));
    signal.throwIfAborted();
  }
}
