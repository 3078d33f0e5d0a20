// The live panel: looks at the server's counters once a second, and draws the last minutes.

import { ask } from "./ask.js";
import { element } from "./element.js";
import { grown, quantile, rate, total, valuesOf } from "./figures.js";
import { sparkline } from "./plots.js";
import { table } from "./table.js";

const SPAN = 5; // seconds that a rate is taken over
const LEAST = 60; // seconds that a plot is wide at least
const MOST = 180; // and at most
const STAGES = ["read", "decode", "queue", "infer", "total"];
const looks = [];
const series = new Map(); // values by the name of the plot

/** Look once a second while somebody sees the page, until the server wants another key. */
export async function watch() {
  for (;;) {
    if (!document.hidden) {
      const problem = await look().catch((error) => error);
      tell(problem);
      if ([401, 403].includes(problem?.status)) return;
    }
    await new Promise((pass) => setTimeout(pass, 1000));
  }
}

function tell(problem) {
  const why = problem?.status === 403 ? "The live panel needs the key of an administrator." : problem?.message;
  Object.assign(document.querySelector("#live-problem"), { textContent: why, hidden: !problem });
}

async function look() {
  const now = await (await ask("live")).json();
  if (now.time_s < looks.at(-1)?.time_s) looks.length = 0; // another server answers
  looks.push(now);
  if (looks.length > SPAN + 1) looks.shift();
  const [before] = looks;
  if (before === now) return;
  document.querySelector("#panel").replaceChildren(...tiles(before, now));
  document.querySelector("#stages").replaceChildren(stages(before, now));
  document.querySelector("#stages").hidden = false;
}

function tiles(before, now) {
  const batches = grown(before, now, "inferception_batch_size_count");
  const mean = batches ? grown(before, now, "inferception_batch_size_sum") / batches : null;
  const refused = valuesOf(now, "inferception_shed_total", "reason").map((reason) => [
    reason,
    rate(before, now, "inferception_shed_total", { reason }),
  ]);
  const reasons = refused.filter(([, some]) => some).map(([reason, some]) => `${reason} ${some.toFixed(1)}`);
  return [
    tile("Images a second", rate(before, now, "inferception_images_total", { outcome: "ok" }), 1),
    tile("Mean batch", mean, 1),
    tile("Waiting images", total(now, "inferception_queue_depth"), 0),
    tile("Refusals a second", rate(before, now, "inferception_shed_total"), 1, reasons.join(", ")),
    tile("Memory, MB", total(now, "process_resident_memory_bytes") / 1e6, 0),
  ];
}

function tile(title, value, digits, note = "") {
  const number = element("strong", { text: value === null ? "–" : value.toFixed(digits), className: "number" });
  return element(
    "div",
    { className: "tile" },
    element("span", { text: title }),
    number,
    plot(title, value),
    element("small", { text: note }),
  );
}

function plot(name, value) {
  const values = series.get(name) ?? [];
  values.push(value);
  if (values.length > MOST) values.shift();
  series.set(name, values);
  return sparkline(values, Math.max(LEAST, values.length));
}

function stages(before, now) {
  const rows = STAGES.map((stage) => {
    const shares = [0.5, 0.99].map((share) => quantile(before, now, stage, share));
    const texts = shares.map((seconds) => (seconds === null ? "–" : (1e3 * seconds).toFixed(0)));
    return [stage, ...texts, plot(`p99 of ${stage}`, shares[1])];
  });
  const within = "half of the images took no longer than p50, and 99 % no longer than p99";
  const text = `The last ${SPAN} seconds: ${within}. Refused requests count in no stage but total.`;
  return table(["Stage", "p50, ms", "p99, ms", "p99, last minutes"], rows, element("caption", { text }));
}
