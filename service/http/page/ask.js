// Asks the service. What it refuses becomes a Problem.

import { askForKey, keyHeader } from "./key.js";

const MOST = 4; // requests at a time: browsers open six connections to a server, and the live panel needs one
let free = MOST;
const waiting = [];

/** Why there is no answer: what RFC 9457 calls title and detail, and the seconds after which to ask again. */
export class Problem extends Error {
  constructor(title, detail, status = 0, retryAfter = 0) {
    super(`${title}: ${detail}`);
    Object.assign(this, { title, detail, status, retryAfter });
  }
}

/** Return the response to a request for a path relative to this page. Throws a Problem. */
export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...options.headers, ...keyHeader() } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("No answer", "The server could not be reached.");
  }
  if (response.ok) return response;
  if ([401, 403].includes(response.status)) askForKey();
  const told = await response.json().catch(() => ({}));
  const retryAfter = Number(response.headers.get("Retry-After"));
  throw new Problem(told.title ?? response.statusText, told.detail ?? "", response.status, retryAfter);
}

/** Do work once fewer than MOST others are done, and after each 429 again. wait(seconds) returns a promise. */
export async function inTurn(work, wait) {
  if (free > 0) free -= 1;
  else await new Promise((begin) => waiting.push(begin));
  try {
    return await untilAdmitted(work, wait); // who waits for a busy server keeps the turn, so that no more are refused
  } finally {
    const next = waiting.shift();
    if (next) next();
    else free += 1;
  }
}

async function untilAdmitted(work, wait) {
  for (;;) {
    try {
      return await work();
    } catch (problem) {
      if (problem.status !== 429) throw problem;
      await wait(problem.retryAfter);
    }
  }
}
