// Tables of figures.

import { element } from "./element.js";

/** Return a table of rows. Each row is its title and its cells, which are texts or elements. */
export function table(titles, rows, ...caption) {
  const head = element("tr", {}, ...titles.map((text) => element("th", { text, scope: "col" })));
  const body = rows.map(([title, ...cells]) =>
    element("tr", {}, element("th", { text: title, scope: "row" }), ...cells.map((cell) => element("td", {}, cell))),
  );
  return element("table", {}, ...caption, element("thead", {}, head), element("tbody", {}, ...body));
}
