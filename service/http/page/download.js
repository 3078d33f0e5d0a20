// The answers as a file.

import { element } from "./element.js";

const COLUMNS = ["file", "model", "version", "precision", "trained", "rank", "label", "probability"];
const TIMES = ["decode", "queue", "infer", "total"];

/** Save the answers so far as "csv" or "json". A picture with a problem has its error. */
export function save(kind, asked) {
  const answers = asked
    .filter(({ answer }) => answer)
    .map(({ file, model, answer }) => ({ file: file.name, model: model.name, ...answer }));
  const [text, type] =
    kind === "csv" ? [csv(answers), "text/csv"] : [JSON.stringify(answers, null, 2), "application/json"];
  const href = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href, download: `inferception.${kind}` }).click();
  setTimeout(() => URL.revokeObjectURL(href));
}

function csv(answers) {
  const head = [...COLUMNS, ...TIMES.map((stage) => `${stage}_ms`), "batch_size", "error"];
  const rows = answers.flatMap((answer) =>
    (answer.predictions ?? [{}]).map((prediction, place) => row(answer, prediction, place + 1)),
  );
  return [head, ...rows].map((cells) => `${cells.map(cell).join(",")}\r\n`).join("");
}

function row(answer, prediction, rank) {
  const told = { ...answer, ...prediction, rank };
  return [
    ...COLUMNS.map((name) => told[name]),
    ...TIMES.map((stage) => answer.timing_ms?.[stage]),
    answer.batch_size,
    answer.error,
  ];
}

function cell(value) {
  const text = String(value ?? "");
  const harmless = /^[=+@-]/.test(text) ? `'${text}` : text; // a spreadsheet would compute it
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}
