// A golden sample: a picture with the answer that the export recorded.

import { ask } from "./ask.js";
import { add } from "./classify.js";
import { element } from "./element.js";

/** Return a golden sample's picture as a file. Throws a Problem. */
export async function sampleOf({ name, version }, number) {
  const response = await ask(`models/${name}/golden/${number}?version=${version}`);
  const picture = await response.blob();
  return new File([picture], `${name}-golden-${number}.${picture.type.replace(/.*\//, "")}`, { type: picture.type });
}

/** Return a figure of a golden sample, whose picture is fetched once somebody sees it. */
export function sample(model, { label, probability }, number) {
  const picture = element("img", { alt: `Golden sample ${number}` });
  const again = element("button", { type: "button", text: "Classify" });
  again.ariaLabel = `Classify golden sample ${number} of ${model.name}`;
  again.onclick = async () => add([await sampleOf(model, number)]);
  whenSeen(picture, async () => {
    picture.src = URL.createObjectURL(await sampleOf(model, number));
  });
  const caption = element("figcaption", { text: `${label}, ${(100 * probability).toFixed(1)} %` });
  return element("figure", {}, picture, caption, again);
}

function whenSeen(node, act) {
  const watcher = new IntersectionObserver(([seen]) => {
    if (!seen.isIntersecting) return;
    watcher.disconnect();
    act().catch((problem) => {
      node.alt = problem.message;
    });
  });
  watcher.observe(node);
}
