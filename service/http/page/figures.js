// What two looks at the server's counters tell of the time between them.

/** Return the sum of a figure's values over all labels that agree with these. */
export function total({ figures }, name, labels = {}) {
  const wanted = Object.entries(labels);
  const agree = (found) => wanted.every(([label, value]) => found[label] === value);
  return figures[name].reduce((sum, { labels: found, value }) => (agree(found) ? sum + value : sum), 0);
}

/** Return by how much a counter grew. */
export function grown(before, now, name, labels) {
  return Math.max(0, total(now, name, labels) - total(before, name, labels));
}

/** Return how fast a counter grew, a second. */
export function rate(before, now, name, labels) {
  return grown(before, now, name, labels) / (now.time_s - before.time_s);
}

/** Return the values of a label among the samples of a figure. */
export function valuesOf({ figures }, name, label) {
  return [...new Set(figures[name].map(({ labels }) => labels[label]))];
}

/** Return the seconds within which a share of the stage's images were done, or null if there were none. */
export function quantile(before, now, stage, share) {
  const name = "inferception_stage_seconds_bucket";
  const bounds = valuesOf(now, name, "le").map(Number.parseFloat).filter(Number.isFinite);
  const counts = bounds.map((bound) => counted(before, now, name, stage, bound));
  const all = grown(before, now, "inferception_stage_seconds_count", { stage });
  if (all === 0) return null;
  const place = counts.findIndex((count) => count >= share * all);
  if (place < 0) return bounds.at(-1);
  const [lower, below] = place ? [bounds[place - 1], counts[place - 1]] : [0, 0];
  return lower + ((bounds[place] - lower) * (share * all - below)) / (counts[place] - below);
}

function counted(before, now, name, stage, bound) {
  const le = valuesOf(now, name, "le").find((text) => Number.parseFloat(text) === bound);
  return grown(before, now, name, { stage, le });
}
