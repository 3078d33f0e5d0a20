// What is known of each version: why it runs where it runs, how fast it is, how right.

import { cropInWords } from "./crop.js";
import { element } from "./element.js";
import { bars } from "./plots.js";
import { untrained } from "./result.js";
import { sample } from "./sample.js";
import { table } from "./table.js";

/** Show all versions in place of those shown before. */
export function list(models) {
  document.querySelector("#catalogue").replaceChildren(...models.map(describe));
}

function describe(model) {
  const title = element("h3", { text: model.version ? `${model.name}, version ${model.version}` : model.name });
  if (model.provider === null)
    return element("article", {}, title, element("p", { text: model.reason, className: "problem" }));
  const marks = [];
  if (!model.ready) marks.push(element("p", { text: model.reason, className: "problem" }));
  if (!model.trained) marks.push(untrained());
  return element("article", {}, title, ...marks, facts(model), speed(model), agreement(model), samples(model));
}

function facts(model) {
  const told = {
    "Runs as": `${model.precision} on ${model.provider}`,
    Because: model.reason,
    Weights: model.weights,
    Classes: model.labels,
    Input: cropInWords(model),
  };
  return element(
    "dl",
    {},
    ...Object.entries(told).flatMap(([term, text]) => [element("dt", { text: term }), element("dd", { text })]),
  );
}

function speed({ batch_ms: times }) {
  const most = Math.max(...Object.values(times));
  const rows = Object.entries(times).map(([size, milliseconds]) => ({
    label: size === "1" ? "1 image" : `${size} images`,
    share: milliseconds / most,
    value: `${milliseconds.toFixed(0)} ms, ${(milliseconds / size).toFixed(0)} ms an image`,
  }));
  return element(
    "div",
    { className: "speed" },
    element("h4", { text: "Time of a batch, measured at the start" }),
    bars(rows),
  );
}

function agreement({ variants }) {
  const rows = variants.map(({ precision, agreement: found }) => [
    precision,
    `${found.reference}, ${found.images} images`,
    `${(100 * found.top1).toFixed(1)} %`,
    found.mean_abs_probability.toPrecision(2),
  ]);
  const title = element("h4", { text: "Exported files, and how their probabilities agree" });
  return element("div", {}, title, table(["Precision", "Compared with", "Same best class", "Mean difference"], rows));
}

function samples(model) {
  const figures = model.golden.map((best, number) => sample(model, best, number));
  const title = element("h4", { text: "Golden samples, with the class and probability that the export recorded" });
  return element("div", {}, title, element("div", { className: "samples" }, ...figures));
}
