// Small plots. Each stands beside its figures in words, so screen readers pass over it.

import { element } from "./element.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 120;
const HEIGHT = 28;

/** Return a list of rows: a label, a bar and a value. Each row is {label, share, value}, and a share is 0 to 1. */
export function bars(rows) {
  const made = element("ol", { className: "bars" });
  for (const { label, share, value } of rows) {
    const bar = element("span", { className: "bar" });
    bar.style.inlineSize = `${100 * share}%`;
    made.append(
      element(
        "li",
        {},
        element("span", { text: label }),
        element("span", { className: "track" }, bar),
        element("span", { text: value, className: "number" }),
      ),
    );
  }
  return made;
}

/** Return one bar of parts. Each part is {name, value}. Below it stands a legend: the sum and the parts, with their unit. */
export function stack(parts, unit) {
  const bar = element("div", { className: "stack", ariaHidden: "true" });
  const sum = parts.reduce((before, { value }) => before + value, 0);
  const legend = element(
    "ul",
    { className: "legend number" },
    element("li", { text: `in all ${sum.toFixed(1)} ${unit}` }),
  );
  for (const { name, value } of parts) {
    const part = element("span", { className: name });
    part.style.flexGrow = value;
    bar.append(part);
    legend.append(element("li", { className: name, text: `${name} ${value.toFixed(1)} ${unit}` }));
  }
  return element("div", {}, bar, legend);
}

/** Return a line through the values, which end at the right edge. A null breaks the line. */
export function sparkline(values, room) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const most = Math.max(...values.map(Number), Number.MIN_VALUE);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", lineOf(values, most, WIDTH / (room - 1), room - values.length));
  svg.append(path);
  return svg;
}

function lineOf(values, most, step, first) {
  const commands = values.map((value, place) => {
    if (value === null) return "";
    const begins = place === 0 || values[place - 1] === null;
    const y = HEIGHT - 1 - ((HEIGHT - 2) * value) / most;
    return `${begins ? "M" : "L"}${((first + place) * step).toFixed(1)} ${y.toFixed(1)}`;
  });
  return commands.join("");
}
