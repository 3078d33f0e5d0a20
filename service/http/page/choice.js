// Which models are asked: one, or two to be compared.

import { element } from "./element.js";

const first = document.querySelector("#model");
const second = document.querySelector("#other");
let served = [];

/** Let the reader choose among the models that are ready. */
export function offer(models) {
  served = models.filter(({ ready }) => ready);
  fill(first, served.length ? [] : ["no model is ready"]);
  fill(second, ["no other model"]);
}

/** Return the chosen models: one, or two to be compared, or none while none is ready. */
export function chosen() {
  return [first, second].map((select) => served[select.value]).filter(Boolean);
}

function fill(select, nothing) {
  const before = select.value;
  const none = nothing.map((text) => element("option", { value: "none", text }));
  const options = served.map((model, value) => element("option", { value, text: nameOf(model) }));
  select.replaceChildren(...none, ...options);
  if (before in served) select.value = before;
}

function nameOf({ name, version, trained }) {
  return `${name}, version ${version}${trained ? "" : " (random weights)"}`;
}
