// The list of pictures: each is asked of the chosen models as soon as it comes.

import { chosen } from "./choice.js";
import { codeButtons } from "./code.js";
import { save } from "./download.js";
import { element } from "./element.js";
import { askInto } from "./result.js";
import { thumbnail } from "./thumbnail.js";

const list = document.querySelector("#pictures");
const progress = document.querySelector("#progress");
const after = document.querySelector("#after");
const asked = []; // {file, model, answer}, and the answer is undefined until it comes
let leaving = new AbortController();

/** Show the files, and ask the chosen models what they are. */
export function add(files) {
  const models = chosen();
  if (models.length === 0) {
    progress.textContent = "No model is ready yet.";
    after.hidden = false;
    return;
  }
  for (const file of files) {
    const results = models.map(() => element("div", { className: "result" }));
    const title = element("h3", { text: file.name });
    const told = element("div", { className: "results" }, ...results);
    list.append(
      element("li", {}, thumbnail(file, models), element("div", {}, title, told, codeButtons(file, models[0]))),
    );
    for (const [place, model] of models.entries()) follow(results[place], file, model);
  }
}

/** Return the first picture's file, if there is a picture. */
export function firstFile() {
  return asked[0]?.file;
}

async function follow(node, file, model) {
  const question = { file, model };
  asked.push(question);
  count();
  question.answer = await askInto(node, file, model, leaving.signal);
  count();
}

function count() {
  const done = asked.filter(({ answer }) => answer !== undefined);
  const failed = done.filter(({ answer }) => answer?.error);
  progress.textContent = `${done.length} of ${asked.length} answered${failed.length ? `, ${failed.length} with a problem` : ""}`;
  after.hidden = asked.length === 0;
}

function clear() {
  leaving.abort();
  leaving = new AbortController();
  asked.length = 0;
  list.replaceChildren();
  count();
}

document.querySelector("#clear").onclick = clear;
for (const kind of ["csv", "json"]) document.querySelector(`#${kind}`).onclick = () => save(kind, asked);
