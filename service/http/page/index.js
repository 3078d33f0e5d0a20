// Starts the page.

import "./intake.js";
import "./copies.js";
import { ask } from "./ask.js";
import { list } from "./catalogue.js";
import { offer } from "./choice.js";
import { watch } from "./live.js";

const ready = document.querySelector("#ready");
const LOOK_MS = 5000;
let listed = "";

/** Say whether the server is ready, and list the models again whenever they change. */
async function follow() {
  const said = await ask("health/ready").then(
    () => "ready",
    (problem) => `not ready: ${problem.detail}`,
  );
  if (said === ready.textContent && !listed) return; // the reader may have to find a key first
  ready.textContent = said;
  ready.className = said === "ready" ? "good" : "bad";
  await show().catch((problem) => {
    document.querySelector("#catalogue").textContent = problem.message;
  });
}

/** List the models if they have changed. Those whose labels mean nothing come last. */
async function show() {
  const told = await (await ask("models")).text();
  if (told === listed) return;
  listed = told;
  const { models } = JSON.parse(told);
  models.sort((one, other) => other.trained - one.trained);
  offer(models);
  list(models);
}

follow();
setInterval(() => document.hidden || follow(), LOOK_MS);
document.addEventListener("visibilitychange", () => document.hidden || follow());
watch();
