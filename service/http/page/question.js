// One picture asked of one model, and where the time went.

import { ask } from "./ask.js";

/** The stages of an answer's time, in their order. */
export const STAGES = ["network", "read", "decode", "queue", "infer", "other"];

/** Return the path to ask a version for its best classes. */
export function pathOf(model) {
  return `classify?${new URLSearchParams({ model: model.name, version: model.version })}`;
}

/** Classify a file. Return the server's answer, with the milliseconds of each stage as stages. Throws a Problem. */
export async function classify(file, model, signal) {
  const start = performance.now();
  const type = file.type || "application/octet-stream";
  const options = { method: "POST", body: file, headers: { "Content-Type": type }, signal };
  const response = await ask(pathOf(model), options);
  const answer = await response.json();
  return { ...answer, stages: stagesOf(response, answer, performance.now() - start) };
}

function stagesOf(response, answer, elapsed) {
  const told = (response.headers.get("Server-Timing") ?? "").matchAll(/(\w+);dur=([\d.]+)/g);
  const server = { read: 0, ...answer.timing_ms };
  for (const [, stage, milliseconds] of told) server[stage] = Number(milliseconds);
  const network = Math.max(0, elapsed - server.total);
  const other = Math.max(0, server.total - server.read - server.decode - server.queue - server.infer);
  return { network, read: server.read, decode: server.decode, queue: server.queue, infer: server.infer, other };
}
