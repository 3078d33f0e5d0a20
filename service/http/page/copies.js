// Sends many copies of one picture, so that the live panel has something to show.

import { ask, inTurn, Problem } from "./ask.js";
import { chosen } from "./choice.js";
import { firstFile } from "./classify.js";
import { pathOf } from "./question.js";
import { sampleOf } from "./sample.js";

const COPIES = 100;
const PATIENCE_MS = 10_000; // after which an answer is worth nothing to this page
const TOGETHER = 4; // in one form: a browser has too few connections to send 16 pictures one by one
const button = document.querySelector("#send");
const told = document.querySelector("#sent");

async function send() {
  const [model] = chosen();
  if (!model) throw new Problem("Nothing to ask", "No model is ready yet.");
  const file = firstFile() ?? (await sampleOf(model, 0));
  const form = new FormData();
  for (let copy = 0; copy < TOGETHER; copy += 1) form.append("file", file);
  const seen = { answered: 0, failed: 0, batches: 0, refusals: 0 };
  const start = performance.now();
  const forms = Array.from({ length: COPIES / TOGETHER }, () => sendForm(form, model, seen));
  await Promise.all(forms);
  const rate = (1e3 * seen.answered) / (performance.now() - start);
  told.textContent = `${words(seen)} That was ${rate.toFixed(1)} images a second.`;
}

async function sendForm(form, model, seen) {
  const work = async () =>
    (await ask(`${pathOf(model)}&timeout_ms=${PATIENCE_MS}`, { method: "POST", body: form })).json();
  const { results } = await inTurn(work, (seconds) => {
    seen.refusals += 1;
    return new Promise((pass) => setTimeout(pass, 1e3 * seconds));
  });
  for (const result of results) {
    if (result.error) seen.failed += 1;
    else seen.answered += 1;
    seen.batches += 1 / (result.batch_size || Number.POSITIVE_INFINITY);
  }
  told.textContent = words(seen);
}

function words({ answered, failed, batches, refusals }) {
  const mean = batches ? ` in batches of ${(answered / batches).toFixed(1)} on average` : "";
  const problems = failed ? ` ${failed} images got a problem.` : "";
  const waits = refusals ? ` The server was busy ${refusals} times.` : "";
  return `${answered} of ${COPIES} images answered${mean}.${problems}${waits}`;
}

button.onclick = async () => {
  button.disabled = true;
  await send().catch((problem) => {
    told.textContent = problem.message;
  });
  button.disabled = false;
};
